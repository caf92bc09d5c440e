//! Device files: `--device /dev/fuse[:/dev/fuse[:rwm]]`.

use dyno_api::dyno::Device;

/// Why a text is not a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceError {
    #[error("accepted is /dev/host[:/dev/inside[:rwm]], such as /dev/fuse")]
    Syntax,
    #[error("{0:?} is not an absolute path")]
    Path(String),
    #[error("{0:?} is not an access; accepted are r, w and m, each at most once")]
    Access(String),
}

/// A device with its path inside and its access, where they differ from the usual.
pub(crate) fn parse(text: &str) -> Result<Device, DeviceError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, access) = match parts[..] {
        [source] => (source, None, None),
        [source, target] if target.starts_with('/') => (source, Some(target), None),
        [source, access] => (source, None, Some(access)),
        [source, target, access] => (source, Some(target), Some(access)),
        _ => return Err(DeviceError::Syntax),
    };
    for path in [Some(source), target].into_iter().flatten() {
        if !path.starts_with('/') {
            return Err(DeviceError::Path(path.to_owned()));
        }
    }
    if let Some(access) = access.filter(|access| !is_access(access)) {
        return Err(DeviceError::Access(access.to_owned()));
    }
    Ok(Device {
        source: source.to_owned(),
        target: target.map(str::to_owned),
        access: access.map(str::to_owned),
    })
}

fn is_access(text: &str) -> bool {
    let known = text.chars().all(|c| "rwm".contains(c));
    let once = "rwm".chars().all(|c| text.matches(c).count() <= 1);
    known && once && !text.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(source: &str, target: Option<&str>, access: Option<&str>) -> Device {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Device {
            source: source.to_owned(),
            target: owned(target),
            access: owned(access),
        }
    }

    #[test]
    fn path_inside_and_access_may_be_left_out() {
        assert_eq!(parse("/dev/fuse"), Ok(device("/dev/fuse", None, None)));
        assert_eq!(
            parse("/dev/fuse:r"),
            Ok(device("/dev/fuse", None, Some("r")))
        );
        let all = device("/dev/sda", Some("/dev/disk"), Some("rwm"));
        assert_eq!(parse("/dev/sda:/dev/disk:rwm"), Ok(all));
    }

    #[test]
    fn what_is_no_device_is_refused_by_name() {
        assert_eq!(parse("fuse"), Err(DeviceError::Path("fuse".to_owned())));
        assert_eq!(
            parse("/dev/a:/dev/b:x"),
            Err(DeviceError::Access("x".to_owned()))
        );
        assert_eq!(
            parse("/dev/a:rr"),
            Err(DeviceError::Access("rr".to_owned()))
        );
        assert_eq!(parse("/a:/b:r:x"), Err(DeviceError::Syntax));
    }
}
