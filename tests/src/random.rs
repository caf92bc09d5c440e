//! Numbers that look random and can be had again.

use serde_json::Value;

/// A small generator: what matters is that a seed gives the same again.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of one round of a test that has this seed.
    pub fn of(seed: u64, round: u64) -> Self {
        Self((seed ^ (round + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1)
    }

    /// A number below this bound, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // xorshift64*, Vigna 2016.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits") % bound
    }

    /// One of these, of which there is at least one.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// `DYNO_SEED`, or a seed that is always the same.
pub fn seed() -> u64 {
    let seed = std::env::var("DYNO_SEED").ok();
    seed.and_then(|seed| seed.parse().ok())
        .unwrap_or(0x6479_6e6f)
}

/// Every place of a document, as JSON pointers (RFC 6901).
pub fn places(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(map) => map.iter().for_each(|(name, inner)| {
                let name = name.replace('~', "~0").replace('/', "~1");
                walk(inner, &format!("{at}/{name}"), found);
            }),
            Value::Array(list) => list.iter().enumerate().for_each(|(index, inner)| {
                walk(inner, &format!("{at}/{index}"), found);
            }),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, "", &mut found);
    found
}
