//! Keys and certificates as text, RFC 7468.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// SubjectPublicKeyInfo (DER) of an EC key on P-256 is this and its point, which is not
/// compressed: 65 bytes (RFC 5480 section 2).
pub const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// One object (DER) under this label, such as `CERTIFICATE`.
pub fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_64_characters_and_the_last_what_is_left() {
        let text = pem("X", &[0; 49]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "-----BEGIN X-----");
        assert_eq!((lines[1].len(), lines[2]), (64, "AA=="));
        assert_eq!(lines[3], "-----END X-----");
        assert_eq!(pem("X", &[]), "-----BEGIN X-----\n-----END X-----\n");
    }
}
