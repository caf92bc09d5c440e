//! Requests that are wrong somewhere: what is true is taken from the OpenAPI document, so
//! that each operation, parameter and field has its turn.

use std::fmt::Write as _;

use dyno_tests::random::{Random, places};
use serde_json::{Map, Value, json};

/// A dyno that there is; nothing that is asked of it starts it.
pub(super) const DYNO: &str = "one";

/// What can be asked, as the document says.
pub(super) struct Contract {
    document: Value,
    operations: Vec<Operation>,
}

struct Operation {
    method: String,
    path: String,
    parameters: Vec<Value>,
    body: Option<Value>,
}

/// A request in the making.
struct Draft {
    method: String,
    target: Vec<u8>,
    headers: Vec<Vec<u8>>,
    body: Vec<u8>,
}

/// A way of being wrong.
type Spoil = fn(&Contract, &mut Random) -> Vec<u8>;

const WAYS: &[Spoil] = &[
    noise, cut, flipped, framing, headers, target, query, body, body, body,
];

impl Contract {
    pub(super) fn of(document: Value) -> Self {
        let mut operations = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let content = operation["requestBody"]["content"].as_object();
                let body = content.and_then(|content| content.get("application/json"));
                operations.push(Operation {
                    method: method.to_uppercase(),
                    path: path.clone(),
                    parameters: operation["parameters"]
                        .as_array()
                        .cloned()
                        .unwrap_or_default(),
                    body: body.map(|body| body["schema"].clone()),
                });
            }
        }
        Self {
            document,
            operations,
        }
    }

    /// A request that is wrong in one way or another.
    pub(super) fn spoilt(&self, random: &mut Random) -> Vec<u8> {
        random.pick(WAYS)(self, random)
    }

    fn operation(&self, random: &mut Random) -> &Operation {
        random.pick(&self.operations)
    }

    fn draft(&self, operation: &Operation, random: &mut Random) -> Draft {
        let body = operation.body.as_ref();
        let body = body.map(|schema| self.value(schema, "", random).to_string());
        Draft {
            method: operation.method.clone(),
            target: path(operation, &[]).into_bytes(),
            headers: vec![b"Host: hostd".to_vec(), b"Connection: close".to_vec()],
            body: body.unwrap_or_default().into_bytes(),
        }
    }

    fn any(&self, random: &mut Random) -> Draft {
        let operation = self.operation(random);
        self.draft(operation, random)
    }

    /// A value that the schema has, with every field of every object.
    fn value(&self, schema: &Value, name: &str, random: &mut Random) -> Value {
        if let Some(reference) = schema["$ref"].as_str() {
            let schema = self.document.pointer(&reference[1..]).unwrap();
            return self.value(schema, name, random);
        }
        for choice in ["oneOf", "anyOf"] {
            if let Some(schemas) = schema[choice].as_array() {
                return self.value(random.pick(schemas), name, random);
            }
        }
        if let Some(schemas) = schema["allOf"].as_array() {
            let mut whole = Map::new();
            for schema in schemas {
                let part = self.value(schema, name, random);
                whole.extend(part.as_object().cloned().unwrap_or_default());
            }
            return whole.into();
        }
        if let Some(values) = schema["enum"].as_array() {
            return random.pick(values).clone();
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => random.pick(kinds).as_str(),
            kind => kind.as_str(),
        };
        match kind {
            Some("object") => self.object(schema, random),
            Some("array") => json!([self.value(&schema["items"], name, random)]),
            Some("integer" | "number") => json!(random.pick(&[0, 1, 80, 5000, 1 << 30])),
            Some("boolean") => json!(random.below(2) == 1),
            Some("string") => json!(text(schema, name)),
            _ => Value::Null,
        }
    }

    fn object(&self, schema: &Value, random: &mut Random) -> Value {
        let mut object = Map::new();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            object.insert(name.clone(), self.value(schema, name, random));
        }
        if schema["additionalProperties"].is_object() {
            let value = self.value(&schema["additionalProperties"], "", random);
            object.insert("KEY".to_owned(), value);
        }
        object.into()
    }
}

/// A text that does no harm where it is believed.
fn text(schema: &Value, name: &str) -> &'static str {
    match (name, schema["format"].as_str()) {
        (_, Some("date-time")) => "2026-01-01T00:00:00Z",
        // No operation gets so far as to need it.
        ("image" | "reference", _) => "localhost:1/nosuch:1",
        ("url", _) => "syslog://127.0.0.1:9",
        ("target" | "path" | "workdir", _) => "/x",
        ("source", _) => "/dev/nosuch",
        ("dyno", _) => "nosuch",
        _ => "x",
    }
}

/// The path of an operation with these texts in the places of its parameters. What ends or
/// starts a dyno is not asked of the one that there is.
fn path(operation: &Operation, texts: &[&str]) -> String {
    let quiet = operation.method != "DELETE"
        && !["/start", "/restart", "/attach"]
            .iter()
            .any(|end| operation.path.ends_with(end));
    let usual = if quiet { DYNO } else { "nosuch" };
    let mut texts = texts.iter();
    let parts = operation.path.split('/').map(|part| match part {
        part if part.starts_with('{') => texts.next().copied().unwrap_or(usual),
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

impl Draft {
    /// The request with a true `Content-Length`.
    fn whole(mut self) -> Vec<u8> {
        let length = format!("Content-Length: {}", self.body.len());
        self.headers.push(length.into_bytes());
        self.unmeasured()
    }

    fn unmeasured(self) -> Vec<u8> {
        let mut bytes = format!("{} ", self.method).into_bytes();
        bytes.extend(self.target);
        bytes.extend(b" HTTP/1.1\r\n");
        for header in self.headers {
            bytes.extend(header);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"\r\n");
        bytes.extend(self.body);
        bytes
    }
}

fn noise(_: &Contract, random: &mut Random) -> Vec<u8> {
    let length = 1 + random.below(2000);
    let mut bytes: Vec<u8> = (0..length).map(|_| byte(random)).collect();
    if random.below(2) == 0 {
        bytes.extend(b"\r\n\r\n");
    }
    bytes
}

fn byte(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).unwrap()
}

fn cut(contract: &Contract, random: &mut Random) -> Vec<u8> {
    let mut bytes = contract.any(random).whole();
    bytes.truncate(random.below(bytes.len()));
    bytes
}

fn flipped(contract: &Contract, random: &mut Random) -> Vec<u8> {
    let mut bytes = contract.any(random).whole();
    for _ in 0..=random.below(8) {
        let at = random.below(bytes.len());
        match random.below(3) {
            0 => bytes[at] = byte(random),
            1 => bytes.insert(at, byte(random)),
            _ => drop(bytes.remove(at)),
        }
    }
    bytes
}

/// How long a body is: said twice, falsely, in two ways, or not.
fn framing(contract: &Contract, random: &mut Random) -> Vec<u8> {
    const LENGTHS: &[&str] = &[
        "Content-Length: 0",
        "Content-Length: 1",
        "Content-Length: 99999999",
        "Content-Length: -1",
        "Content-Length: +2",
        "Content-Length: 0x2",
        "Content-Length: 2, 2",
        "Content-Length: 18446744073709551616",
        "Content-Length: ",
        "Content-Length : 2",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding: xchunked",
        "Expect: 100-continue",
        "Expect: more",
        "Trailer: Content-Length",
        "Upgrade: dyno-frames",
        "Connection: upgrade, close, keep-alive",
        "Content-Encoding: gzip",
    ];
    const CHUNKS: &[&str] = &[
        "0\r\n\r\n",
        "2\r\n{}\r\n0\r\n\r\n",
        "2\r\n{}0\r\n\r\n",
        "2\n{}\n0\n\n",
        "ffffffffffffffff\r\n{}",
        "fffffffffffffffff\r\n{}",
        "-1\r\n{}\r\n",
        "2;x=y;z\r\n{}\r\n0\r\nX: y\r\n\r\n",
        "2 \r\n{}\r\n0 \r\n\r\n",
        "\r\n\r\n",
        "7fffffff\r\n",
        "1\r\n{\r\n1\r\n}\r\n00000000000000000000\r\n\r\n",
    ];
    let mut draft = contract.any(random);
    for _ in 0..=random.below(3) {
        draft.headers.push(random.pick(LENGTHS).as_bytes().to_vec());
    }
    match random.below(4) {
        0 => draft.body = random.pick(CHUNKS).as_bytes().to_vec(),
        1 => {
            let more = "x".repeat(random.below(1 << 17));
            draft.body = format!("{:x};{more}\r\n{{}}\r\n0\r\n", 2).into_bytes();
        }
        2 => {
            let trailers = "X: y\r\n".repeat(random.below(1 << 14));
            draft.body = format!("0\r\n{trailers}\r\n").into_bytes();
        }
        _ => {}
    }
    draft.unmeasured()
}

fn headers(contract: &Contract, random: &mut Random) -> Vec<u8> {
    const NAMES: &[&str] = &[
        "Accept",
        "Authorization",
        "Content-Type",
        "Cookie",
        "Host",
        "Idempotency-Key",
        "Range",
        "X",
        "",
        ":",
        "\0",
        "é",
        "A B",
        " folded",
    ];
    let mut draft = contract.any(random);
    match random.below(3) {
        0 => {
            let value = "x".repeat(random.below(1 << 20));
            draft.headers.push(format!("X: {value}").into_bytes());
        }
        1 => {
            let many = random.below(2000);
            draft
                .headers
                .extend((0..many).map(|number| format!("X{number}: y").into_bytes()));
        }
        _ => {
            for _ in 0..=random.below(4) {
                let mut header = random.pick(NAMES).as_bytes().to_vec();
                header.extend(b": ");
                let length = random.below(300);
                header.extend((0..length).map(|_| byte(random)));
                draft.headers.push(header);
            }
        }
    }
    draft.whole()
}

/// Texts that are no names, in the places of those.
const NO_NAMES: &[&str] = &[
    "",
    ".",
    "..",
    "%2e%2e",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2fetc%2fpasswd",
    "%00",
    "x%00y",
    "%",
    "%g",
    "%zz",
    "%ff%fe",
    "%c0%ae%c0%ae",
    "%e2%80%ae",
    "%u0041",
    "%25%32%65",
    "x;y",
    "x#y",
    "*",
    "~",
    "-1",
    "0",
    "nosuch",
    "sha256:..%2f..%2fhost.json",
];

fn target(contract: &Contract, random: &mut Random) -> Vec<u8> {
    let operation = contract.operation(random);
    let mut draft = contract.draft(operation, random);
    let long = "x".repeat(1 + random.below(1 << 16));
    let mut one = || match random.below(8) {
        0 => long.as_str(),
        _ => random.pick(NO_NAMES),
    };
    let texts = [one(), one()];
    let path = path(operation, &texts);
    draft.target = match random.below(8) {
        0 => format!("http://169.254.169.254{path}"),
        1 => format!("/..{path}"),
        2 => format!("/{path}"),
        3 => format!("{path}/"),
        4 => path[..random.below(path.len() + 1)].to_owned(),
        _ => path,
    }
    .into_bytes();
    if random.below(8) == 0 {
        let at = random.below(draft.target.len() + 1);
        draft.target.insert(at, byte(random));
    }
    draft.whole()
}

fn query(contract: &Contract, random: &mut Random) -> Vec<u8> {
    const VALUES: &[&str] = &[
        "",
        "true",
        "TRUE",
        "2",
        "-1",
        "0",
        "1e9",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
        "9999-12-31T23:59:59Z",
        "-009999-01-01T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "KILL",
        "SIGSTOP",
        "999",
        "%00",
        "%ff",
        "%",
        "+",
        "a=b",
        "/../../etc/passwd",
        "%2f..%2f..%2fetc",
        "nosuch",
    ];
    let operation = contract.operation(random);
    let mut draft = contract.draft(operation, random);
    let names: Vec<&str> = operation
        .parameters
        .iter()
        .filter(|parameter| parameter["in"] == "query")
        .filter_map(|parameter| parameter["name"].as_str())
        .chain(["nosuch"])
        .collect();
    let mut query = String::from("?");
    for _ in 0..=random.below(3) {
        let (name, value) = (random.pick(&names), random.pick(VALUES));
        write!(query, "{name}={value}&").unwrap();
    }
    if random.below(20) == 0 {
        query.push_str(&"x&".repeat(random.below(1 << 15)));
    }
    draft.target.extend(query.into_bytes());
    draft.whole()
}

/// A body that is true but for one or two places, or as a whole.
fn body(contract: &Contract, random: &mut Random) -> Vec<u8> {
    let with_body: Vec<_> = contract
        .operations
        .iter()
        .filter(|operation| operation.body.is_some())
        .collect();
    let operation = random.pick(&with_body);
    let mut draft = contract.draft(operation, random);
    draft.body = match random.below(12) {
        0 => "[".repeat(random.below(1 << 18)).into_bytes(),
        1 => r#"{"x":"#.repeat(random.below(1 << 16)).into_bytes(),
        2 => draft.body[..random.below(draft.body.len())].to_vec(),
        3 => doubled(&draft.body, random),
        4 => [&draft.body[..], b"\xff\xfe\0"].concat(),
        _ => {
            let mut value: Value = serde_json::from_slice(&draft.body).unwrap();
            for _ in 0..=random.below(2) {
                let all = places(&value);
                let place: &String = random.pick(&all);
                *value.pointer_mut(place).unwrap() = hostile(random);
            }
            // No number of serde_json's is as large as these.
            let text = value.to_string();
            let large = *random.pick(&["1e999", "-0", "1e-999", "123456789012345678901234567890"]);
            text.replace("\"LARGE\"", large).into_bytes()
        }
    };
    // What asks for an upgrade gets so far as to have its body read.
    if operation.path.ends_with("/attach") || operation.path.ends_with("/exec") {
        draft.headers[1] = b"Connection: upgrade".to_vec();
        draft.headers.push(b"Upgrade: dyno-frames".to_vec());
    }
    draft.whole()
}

/// Each field twice.
fn doubled(body: &[u8], random: &mut Random) -> Vec<u8> {
    let text = String::from_utf8_lossy(body);
    let inner = text.trim_start_matches('{').trim_end_matches('}');
    let times = 2 + random.below(50);
    format!("{{{}}}", vec![inner; times].join(",")).into_bytes()
}

fn hostile(random: &mut Random) -> Value {
    match random.below(6) {
        0 => json!("x".repeat(random.below(1 << 16))),
        1 => json!(vec![0; random.below(5000)]),
        2 => {
            let mut nested = json!(0);
            for _ in 0..random.below(120) {
                nested = json!([nested]);
            }
            nested
        }
        _ => {
            let values = [
                json!(null),
                json!(true),
                json!(-1),
                json!(0),
                json!(1.5),
                json!(65536),
                json!(u32::MAX),
                json!(i64::MIN),
                json!(u64::MAX),
                json!("LARGE"),
                json!(""),
                json!("x\0y"),
                json!("../../../etc/passwd"),
                json!("/proc/self/root"),
                json!("-1"),
                json!("\u{202e}\u{feff}é\n\r\t"),
                json!({}),
                json!([]),
                json!([null]),
                json!({"": ""}),
                json!({"x": {"x": {"x": 0}}}),
            ];
            random.pick(&values).clone()
        }
    }
}
