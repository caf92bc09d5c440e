//! Flags for secrets and configuration files.

use std::path::Path;

use clap::Args;
use dyno_api::dyno::DynoSpec;
use dyno_api::secret::{CONFIG_FILE_MAX_BYTES, ConfigFile, SecretFile, SecretName};

use crate::failure::Failure;
use crate::value::given::{self, ConfigFileFlag};

/// What a dyno is given beside its image.
#[derive(Debug, Default, Args)]
pub(super) struct GivenArgs {
    /// Secret as a file [default target: /run/secrets/NAME, mode: 0400]
    #[arg(
        long,
        value_name = "NAME[:target=PATH,mode=MODE,uid=N,gid=N]",
        value_parser = given::parse_secret
    )]
    secret: Vec<SecretFile>,
    /// Secret as an environment variable
    #[arg(long, value_name = "VARIABLE=NAME", value_parser = given::parse_variable)]
    secret_env: Vec<(String, SecretName)>,
    /// Copy of a text file of this machine, kept with the dyno, read-only
    #[arg(long, value_name = "FILE:PATH[:mode=MODE]", value_parser = given::parse_config_file)]
    config_file: Vec<ConfigFileFlag>,
}

impl GivenArgs {
    /// Puts it into the specification. Relative paths are seen from `cwd`.
    ///
    /// # Errors
    /// A [`Failure`] where a file cannot be read, is too long or no text.
    pub(super) fn into_spec(self, spec: &mut DynoSpec, cwd: &Path) -> Result<(), Failure> {
        spec.secrets = self.secret;
        spec.secret_env = self.secret_env.into_iter().collect();
        let files = self.config_file.into_iter();
        spec.config_files = files
            .map(|flag| read(flag, cwd))
            .collect::<Result<_, _>>()?;
        Ok(())
    }
}

fn read(flag: ConfigFileFlag, cwd: &Path) -> Result<ConfigFile, Failure> {
    use std::io::Read;
    let shown = flag.source.display();
    let mut text = Vec::new();
    let most = u64::try_from(CONFIG_FILE_MAX_BYTES).unwrap_or(u64::MAX) + 1;
    std::fs::File::open(cwd.join(&flag.source))
        .and_then(|file| file.take(most).read_to_end(&mut text))
        .map_err(|error| Failure::io(format!("cannot read --config-file {shown}"), &error))?;
    let refused = |why: String| {
        Failure::usage(format!("--config-file {shown}: {why}"))
            .hint("use a volume or a bind mount: -v")
    };
    if text.len() > CONFIG_FILE_MAX_BYTES {
        let why = format!("it has more than {CONFIG_FILE_MAX_BYTES} bytes");
        return Err(refused(why));
    }
    let content = String::from_utf8(text).map_err(|_bytes| refused("it is no text".to_owned()))?;
    Ok(ConfigFile {
        target: flag.target,
        content: Some(content),
        mode: flag.mode,
    })
}
