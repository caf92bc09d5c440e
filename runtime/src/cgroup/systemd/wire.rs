//! D-Bus messages as bytes: the D-Bus specification, "Marshaling" and "Message Format".
//!
//! Little-endian is written and both are read, without descriptors. A message from the
//! other side is bounded and checked at every step: none makes us panic or allocate
//! more than it is long (P15).

/// A value with its type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Byte(u8),
    Bool(bool),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(String),
    Path(String),
    Signature(String),
    /// The signature of its elements, and these.
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    Variant(Box<Value>),
}

impl Value {
    pub(super) fn str(text: impl Into<String>) -> Self {
        Self::Str(text.into())
    }

    pub(super) fn variant(value: Self) -> Self {
        Self::Variant(Box::new(value))
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) | Self::Path(text) | Self::Signature(text) => Some(text),
            Self::Variant(value) => value.as_str(),
            _ => None,
        }
    }

    fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".into(),
            Self::Bool(_) => "b".into(),
            Self::I32(_) => "i".into(),
            Self::U32(_) => "u".into(),
            Self::I64(_) => "x".into(),
            Self::U64(_) => "t".into(),
            Self::F64(_) => "d".into(),
            Self::Str(_) => "s".into(),
            Self::Path(_) => "o".into(),
            Self::Signature(_) => "g".into(),
            Self::Array(element, _) => format!("a{element}"),
            Self::Struct(fields) => format!("({})", signature(fields)),
            Self::Variant(_) => "v".into(),
        }
    }
}

fn signature(values: &[Value]) -> String {
    values.iter().map(Value::signature).collect()
}

/// The alignment of a type by the first letter of its signature.
fn alignment(code: u8) -> usize {
    match code {
        b'y' | b'g' | b'v' => 1,
        b'n' | b'q' => 2,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 4,
    }
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend(bytes);
    }

    /// Nothing that we send comes near 4 GiB; a length that does is refused by the peer.
    fn length(&mut self, length: usize) {
        self.number(u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(byte) => self.0.push(*byte),
            Value::Bool(value) => self.number(u32::from(*value).to_le_bytes()),
            Value::I32(number) => self.number(number.to_le_bytes()),
            Value::U32(number) => self.number(number.to_le_bytes()),
            Value::I64(number) => self.number(number.to_le_bytes()),
            Value::U64(number) => self.number(number.to_le_bytes()),
            Value::F64(number) => self.number(number.to_le_bytes()),
            Value::Str(text) | Value::Path(text) => {
                self.length(text.len());
                self.0.extend(text.as_bytes());
                self.0.push(0);
            }
            Value::Signature(text) => self.signature(text),
            Value::Array(element, values) => {
                self.length(0);
                let length_at = self.0.len() - 4;
                // The padding before the first element does not count.
                self.align(alignment(*element.as_bytes().first().unwrap_or(&b'y')));
                let begin = self.0.len();
                values.iter().for_each(|value| self.value(value));
                let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
                self.0[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
            }
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|field| self.value(field));
            }
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
    depth: u8,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.next_multiple_of(to);
        (self.at <= self.bytes.len()).then_some(())
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.align(N)?;
        let mut bytes: [u8; N] = self.take(N)?.try_into().ok()?;
        if self.big_endian {
            bytes.reverse();
        }
        Some(bytes)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.number()?)).ok()
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = std::str::from_utf8(self.take(length)?).ok()?.to_owned();
        (self.take(1)? == [0]).then_some(text)
    }

    fn values(&mut self, mut signature: &str) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        while !signature.is_empty() {
            let (one, rest) = signature.split_at(complete(signature.as_bytes(), 0)?);
            values.push(self.value(one)?);
            signature = rest;
        }
        Some(values)
    }

    fn value(&mut self, signature: &str) -> Option<Value> {
        // The specification's limit on containers in containers.
        self.depth = self.depth.checked_add(1).filter(|depth| *depth < 64)?;
        let value = match signature.as_bytes().first()? {
            b'y' => Value::Byte(self.take(1)?[0]),
            b'b' => Value::Bool(u32::from_le_bytes(self.number()?) != 0),
            b'n' => Value::I32(i16::from_le_bytes(self.number()?).into()),
            b'q' => Value::U32(u16::from_le_bytes(self.number()?).into()),
            b'i' => Value::I32(i32::from_le_bytes(self.number()?)),
            b'u' | b'h' => Value::U32(u32::from_le_bytes(self.number()?)),
            b'x' => Value::I64(i64::from_le_bytes(self.number()?)),
            b't' => Value::U64(u64::from_le_bytes(self.number()?)),
            b'd' => Value::F64(f64::from_le_bytes(self.number()?)),
            b's' => self
                .length()
                .and_then(|length| self.text(length))
                .map(Value::Str)?,
            b'o' => self
                .length()
                .and_then(|length| self.text(length))
                .map(Value::Path)?,
            b'g' => Value::Signature(self.short()?),
            b'v' => {
                let inner = self.short()?;
                if complete(inner.as_bytes(), 0)? != inner.len() {
                    return None;
                }
                Value::variant(self.value(&inner)?)
            }
            b'a' => self.array(&signature[1..])?,
            b'(' | b'{' => {
                self.align(8)?;
                Value::Struct(self.values(&signature[1..signature.len() - 1])?)
            }
            _ => return None,
        };
        self.depth -= 1;
        Some(value)
    }

    fn short(&mut self) -> Option<String> {
        let length = self.take(1)?[0];
        self.text(length.into())
    }

    fn array(&mut self, element: &str) -> Option<Value> {
        let length = self.length()?;
        self.align(alignment(*element.as_bytes().first()?))?;
        let end = self.at.checked_add(length)?;
        let mut values = Vec::new();
        while self.at < end {
            values.push(self.value(element)?);
        }
        (self.at == end).then(|| Value::Array(element.to_owned(), values))
    }
}

/// The length of the first complete type of a signature.
fn complete(signature: &[u8], depth: u8) -> Option<usize> {
    let depth = depth.checked_add(1).filter(|depth| *depth < 64)?;
    let closing = match signature.first()? {
        b'a' => return Some(1 + complete(&signature[1..], depth)?),
        b'(' => b')',
        b'{' => b'}',
        _ => return Some(1),
    };
    let mut at = 1;
    while *signature.get(at)? != closing {
        at += complete(&signature[at..], depth)?;
    }
    Some(at + 1)
}

pub(super) const METHOD_CALL: u8 = 1;
pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// The specification's limit on a message.
const MAX_MESSAGE: usize = 128 << 20;
/// What we take: answers of systemd are short.
const MAX_TAKEN: usize = 1 << 20;

/// A message. Header fields that we neither send nor need are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) serial: u32,
    pub(super) path: String,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error_name: String,
    pub(super) reply_serial: u32,
    pub(super) destination: String,
    pub(super) sender: String,
    pub(super) body: Vec<Value>,
}

impl Message {
    /// The bytes of the message.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|value| body.value(value));
        let text =
            |code: u8, value: Value| Value::Struct(vec![Value::Byte(code), Value::variant(value)]);
        let mut fields = Vec::new();
        if !self.path.is_empty() {
            fields.push(text(1, Value::Path(self.path.clone())));
        }
        for (code, value) in [
            (2, &self.interface),
            (3, &self.member),
            (4, &self.error_name),
            (6, &self.destination),
        ] {
            if !value.is_empty() {
                fields.push(text(code, Value::str(value)));
            }
        }
        if self.reply_serial != 0 {
            fields.push(text(5, Value::U32(self.reply_serial)));
        }
        if !self.body.is_empty() {
            fields.push(text(8, Value::Signature(signature(&self.body))));
        }
        let mut out = Writer(vec![b'l', self.kind, 0, 1]);
        out.length(body.0.len());
        out.number(self.serial.to_le_bytes());
        out.value(&Value::Array("(yv)".into(), fields));
        out.align(8);
        out.0.extend(body.0);
        out.0
    }

    /// How long the message is whose first sixteen bytes these are.
    pub(super) fn length(head: &[u8; 16]) -> Option<usize> {
        let [
            order,
            _,
            _,
            version,
            b0,
            b1,
            b2,
            b3,
            _,
            _,
            _,
            _,
            f0,
            f1,
            f2,
            f3,
        ] = *head;
        let number = |bytes: [u8; 4]| match order {
            b'l' => usize::try_from(u32::from_le_bytes(bytes)).ok(),
            b'B' => usize::try_from(u32::from_be_bytes(bytes)).ok(),
            _ => None,
        };
        let (body, fields) = (number([b0, b1, b2, b3])?, number([f0, f1, f2, f3])?);
        if version != 1 || body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return None;
        }
        Some((16 + fields).next_multiple_of(8) + body).filter(|length| *length <= MAX_TAKEN)
    }

    /// The message that these bytes are, whole.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk()?;
        if Self::length(head)? != bytes.len() {
            return None;
        }
        let mut reader = Reader {
            bytes,
            at: 8,
            big_endian: bytes[0] == b'B',
            depth: 0,
        };
        let mut message = Self {
            kind: bytes[1],
            serial: u32::from_le_bytes(reader.number()?),
            ..Self::default()
        };
        let Value::Array(_, fields) = reader.array("(yv)")? else {
            return None;
        };
        let mut body = String::new();
        for field in fields {
            let Value::Struct(field) = field else {
                return None;
            };
            let [Value::Byte(code), Value::Variant(value)] = field.as_slice() else {
                return None;
            };
            let place = match (code, &**value) {
                (5, Value::U32(serial)) => {
                    message.reply_serial = *serial;
                    continue;
                }
                (1, _) => &mut message.path,
                (2, _) => &mut message.interface,
                (3, _) => &mut message.member,
                (4, _) => &mut message.error_name,
                (6, _) => &mut message.destination,
                (7, _) => &mut message.sender,
                (8, _) => &mut body,
                _ => continue,
            };
            *place = value.as_str()?.to_owned();
        }
        reader.align(8)?;
        message.body = reader.values(&body)?;
        (reader.at == bytes.len()).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.value(value);
        writer.0
    }

    /// The examples of the specification: "Marshaling (Wire Format)", strings and an
    /// array of 64-bit integers, here in little-endian.
    #[test]
    fn values_are_written_as_the_specification_shows() {
        let hello = [5, 0, 0, 0, b'h', b'e', b'l', b'l', b'o', 0];
        assert_eq!(bytes(&Value::str("hello")), hello);
        let array = Value::Array("x".into(), vec![Value::I64(5)]);
        let expected = [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes(&array), expected, "the padding does not count");
        let empty = Value::Array("(sv)".into(), Vec::new());
        assert_eq!(bytes(&empty), [0; 8], "nor is it left out");
        let variant = Value::variant(Value::U32(1));
        assert_eq!(bytes(&variant), [1, b'u', 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes(&Value::Bool(true)), [1, 0, 0, 0]);
    }

    /// The call that every client begins with, byte by byte.
    #[test]
    fn the_first_call_is_what_every_client_sends() {
        let hello = Message {
            kind: METHOD_CALL,
            serial: 1,
            path: "/org/freedesktop/DBus".into(),
            interface: "org.freedesktop.DBus".into(),
            member: "Hello".into(),
            destination: "org.freedesktop.DBus".into(),
            ..Message::default()
        };
        let expected: &[u8] = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6d\x00\x00\x00\
            \x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00\
            \x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
            \x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00\
            \x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00";
        assert_eq!(hello.encode(), expected);
        assert_eq!(Message::decode(expected), Some(hello));
    }

    #[test]
    fn a_big_endian_peer_is_understood() {
        let message = b"B\x02\x00\x01\x00\x00\x00\x08\x00\x00\x00\x07\x00\x00\x00\x10\
            \x05\x01u\x00\x00\x00\x00\x03\x08\x01g\x00\x02su\x00\
            \x00\x00\x00\x00\x00\x00\x00\x00";
        assert_eq!(
            Message::decode(message),
            None,
            "the body is not what it says"
        );
        let message = b"B\x02\x00\x01\x00\x00\x00\x08\x00\x00\x00\x07\x00\x00\x00\x10\
            \x05\x01u\x00\x00\x00\x00\x03\x08\x01g\x00\x02uu\x00\
            \x00\x00\x00\x01\x00\x00\x00\x02";
        let message = Message::decode(message).unwrap();
        assert_eq!((message.serial, message.reply_serial), (7, 3));
        assert_eq!(message.body, [Value::U32(1), Value::U32(2)]);
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<u8>().prop_map(Value::Byte),
            any::<bool>().prop_map(Value::Bool),
            any::<u32>().prop_map(Value::U32),
            any::<u64>().prop_map(Value::U64),
            "[a-z]{0,9}".prop_map(Value::Str),
            prop::collection::vec(any::<u64>().prop_map(Value::U64), 0..3)
                .prop_map(|all| Value::Array("t".into(), all)),
            prop::collection::vec(any::<u8>().prop_map(Value::Byte), 0..9)
                .prop_map(|all| Value::Array("y".into(), all)),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                inner.clone().prop_map(Value::variant),
                prop::collection::vec(inner, 1..3).prop_map(Value::Struct),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(body in prop::collection::vec(value(), 0..4)) {
            let message = Message {
                kind: SIGNAL,
                serial: 9,
                path: "/a".into(),
                member: "M".into(),
                body,
                ..Message::default()
            };
            prop_assert_eq!(Message::decode(&message.encode()), Some(message));
        }

        /// P15
        #[test]
        fn no_message_makes_us_panic(
            body in prop::collection::vec(value(), 0..4),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let message = Message { kind: SIGNAL, serial: 9, body, ..Message::default() };
            let mut bytes = message.encode();
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            drop(Message::decode(&bytes));
        }
    }
}
