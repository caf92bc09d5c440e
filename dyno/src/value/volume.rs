//! A volume, or a snapshot of it: `NAME` or `NAME@SNAPSHOT`.

use dyno_api::name::NameError;
use dyno_api::volume::VolumeSource;

/// The volume and maybe the snapshot that a text names.
pub(crate) fn parse(text: &str) -> Result<VolumeSource, NameError> {
    Ok(match text.split_once('@') {
        Some((volume, snapshot)) => VolumeSource {
            volume: volume.parse()?,
            snapshot: Some(snapshot.parse()?),
        },
        None => VolumeSource {
            volume: text.parse()?,
            snapshot: None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_stands_behind_its_volume() {
        let parts = |text: &str| {
            let source = parse(text).unwrap();
            (source.volume.to_string(), source.snapshot.map(String::from))
        };
        assert_eq!(parts("data"), ("data".to_owned(), None));
        assert_eq!(
            parts("data@x-1"),
            ("data".to_owned(), Some("x-1".to_owned()))
        );
        for bad in ["", "@x", "data@", "a@b@c", "../x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
