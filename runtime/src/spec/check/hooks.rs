//! Hooks.

use oci_spec::runtime::Spec;

use super::super::SpecError;

/// A relative path would depend on whoever calls us; time only goes forward.
pub(super) fn check_hooks(spec: &Spec) -> Result<(), SpecError> {
    let Some(hooks) = spec.hooks() else {
        return Ok(());
    };
    let prestart = hooks.prestart();
    let kinds = [
        prestart,
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    for hook in kinds.into_iter().flatten().flatten() {
        let invalid = |property, value, expected| SpecError::Invalid {
            property,
            value,
            expected,
        };
        if !hook.path().is_absolute() {
            let path = hook.path().display().to_string();
            return Err(invalid("hooks.path", path, "an absolute path"));
        }
        if let Some(timeout) = hook.timeout().filter(|timeout| *timeout <= 0) {
            let expected = "a number of seconds above 0";
            return Err(invalid("hooks.timeout", timeout.to_string(), expected));
        }
    }
    Ok(())
}
