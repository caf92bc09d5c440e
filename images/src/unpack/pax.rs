//! Pax extended headers: `LENGTH KEY=VALUE\n` records that describe the next member.
//!
//! Own code because the tar crate splits records at newlines, and the values of extended
//! attributes are binary.

use rustix::fs::Timespec;

use super::error::Refusal;

/// What pax records say of a member. `None`: nothing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Timespec>,
    /// Name and value of each extended attribute.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Apparent size of a sparse member whose map precedes its data (GNU's "format 1.0").
    pub(super) sparse_size: Option<u64>,
}

impl Pax {
    /// Reads the data of an `x` member.
    pub(super) fn parse(mut records: &[u8]) -> Result<Pax, Refusal> {
        let mut pax = Pax::default();
        let mut sparse_name = None;
        while !records.is_empty() {
            let (key, value, rest) = split(records).ok_or(Refusal::Format("bad pax record"))?;
            records = rest;
            match key {
                b"path" => pax.path = Some(value.to_owned()),
                b"linkpath" => pax.link = Some(value.to_owned()),
                b"size" => pax.size = Some(number(value)?),
                b"uid" => pax.uid = Some(number(value)?),
                b"gid" => pax.gid = Some(number(value)?),
                b"mtime" => pax.mtime = Some(time(value)?),
                b"GNU.sparse.name" => sparse_name = Some(value.to_owned()),
                b"GNU.sparse.realsize" => pax.sparse_size = Some(number(value)?),
                b"GNU.sparse.major" if value == b"1" => {}
                b"GNU.sparse.minor" if value == b"0" => {}
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(Refusal::Format(
                        "sparse member of a format other than GNU's 1.0",
                    ));
                }
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        pax.xattrs.push((name.to_owned(), value.to_owned()));
                    }
                }
            }
        }
        if pax.sparse_size.is_some() != sparse_name.is_some() {
            return Err(Refusal::Format("sparse member without name or size"));
        }
        // `path` of a sparse member is an invented name for tars that do not know the format.
        pax.path = sparse_name.or(pax.path);
        Ok(pax)
    }
}

/// The first record's key and value, and the records after it.
fn split(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    if length <= space {
        return None;
    }
    let (record, rest) = records.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// Digits only: what one reader takes for a number and another does not hides things.
fn number(value: &[u8]) -> Result<u64, Refusal> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let text = if digits {
        str::from_utf8(value).ok()
    } else {
        None
    };
    text.and_then(|text| text.parse().ok())
        .ok_or(Refusal::Format("bad number in a pax record"))
}

/// Seconds with an optional fraction, which may be negative.
fn time(value: &[u8]) -> Result<Timespec, Refusal> {
    let refuse = || Refusal::Format("bad time in a pax record");
    let text = str::from_utf8(value).ok().ok_or_else(refuse)?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    let mut tv_sec: i64 = seconds.parse().ok().ok_or_else(refuse)?;
    let nine_digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let mut tv_nsec = nine_digits.fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    if seconds.starts_with('-') && tv_nsec > 0 {
        // -1.25 is 0.75 s after -2.
        tv_sec = tv_sec.checked_sub(1).ok_or_else(refuse)?;
        tv_nsec = 1_000_000_000 - tv_nsec;
    }
    Ok(Timespec { tv_sec, tv_nsec })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let length = (1..).find(|digits| (body + digits).to_string().len() == *digits);
        let mut record = format!("{} {key}=", body + length.unwrap()).into_bytes();
        record.extend(value);
        record.push(b'\n');
        record
    }

    #[test]
    fn values_may_hold_newlines_and_zeros() {
        let records = [
            record("SCHILY.xattr.user.x", b"a\nb\0=c\n"),
            record("path", b"with\nnewline"),
            record("mtime", b"1700000000.25"),
            record("comment", b"ignored"),
        ];
        let pax = Pax::parse(&records.concat()).unwrap();
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"a\nb\0=c\n".to_vec())]);
        assert_eq!(pax.path.unwrap(), b"with\nnewline");
        assert_eq!(
            pax.mtime.unwrap(),
            Timespec {
                tv_sec: 1_700_000_000,
                tv_nsec: 250_000_000
            }
        );
    }

    #[test]
    fn times_before_1970_round_the_right_way() {
        assert_eq!(
            time(b"-1.25").unwrap(),
            Timespec {
                tv_sec: -2,
                tv_nsec: 750_000_000
            }
        );
        assert_eq!(
            time(b"-1").unwrap(),
            Timespec {
                tv_sec: -1,
                tv_nsec: 0
            }
        );
        assert_eq!(
            time(b"0.0000000019").unwrap(),
            Timespec {
                tv_sec: 0,
                tv_nsec: 1
            }
        );
    }

    #[test]
    fn malformed_records_are_refused() {
        for records in [
            &b"5"[..],
            b"x path=a\n",
            b"3 path=a\n",
            b"100 path=a\n",
            b"0 path=a\n",
            b"9 path=a ",
            b"8 patha\n",
            b"99999999999999999999999 path=a\n",
        ] {
            assert!(
                Pax::parse(records).is_err(),
                "{}",
                String::from_utf8_lossy(records)
            );
        }
        for (key, value) in [
            ("uid", "+5"),
            ("uid", ""),
            ("size", "0x5"),
            ("mtime", "1.x"),
            ("mtime", "now"),
            ("GNU.sparse.major", "0"),
            ("GNU.sparse.realsize", "5"),
        ] {
            assert!(
                Pax::parse(&record(key, value.as_bytes())).is_err(),
                "{key}={value}"
            );
        }
    }
}
