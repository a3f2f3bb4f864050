//! Which file is the config, and its text.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::error::ConfigError;

/// The variable that names a config.
pub const CONFIG_VARIABLE: &str = "LIFEBOAT_CONFIG";
/// The config of the folder that one stands in.
pub const LOCAL_CONFIG: &str = "lifeboat.toml";
/// The config of the host.
pub const SYSTEM_CONFIG: &str = "/etc/lifeboat/lifeboat.toml";
/// No config is longer.
pub const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// The config's absolute path: `--config`, else `$LIFEBOAT_CONFIG`, `./lifeboat.toml`, `/etc/lifeboat/lifeboat.toml`.
/// One that is named must be there: no other is taken in its stead.
///
/// # Errors
/// [`ConfigError::Missing`], [`ConfigError::NotThere`].
pub fn locate(explicit: Option<&Path>) -> Result<PathBuf, ConfigError> {
    let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
    locate_from(explicit, std::env::var_os(CONFIG_VARIABLE), &here, Path::new(SYSTEM_CONFIG))
}

fn locate_from(
    explicit: Option<&Path>,
    variable: Option<OsString>,
    here: &Path,
    system: &Path,
) -> Result<PathBuf, ConfigError> {
    // A variable set to nothing is how shells unset one in passing.
    let variable = variable.filter(|value| !value.is_empty()).map(PathBuf::from);
    let named =
        explicit.map(|path| (path.to_owned(), "--config")).or_else(|| variable.map(|path| (path, "$LIFEBOAT_CONFIG")));
    if let Some((path, named_by)) = named {
        let path = here.join(path);
        // What cannot be looked at for another reason is named when it is read.
        let gone = path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        return if gone { Err(ConfigError::NotThere { path, named_by }) } else { Ok(path) };
    }
    let looked = vec![here.join(LOCAL_CONFIG), system.to_owned()];
    match looked.iter().find(|path| !matches!(path.metadata(), Err(e) if e.kind() == io::ErrorKind::NotFound)) {
        Some(path) => Ok(path.clone()),
        None => Err(ConfigError::Missing { looked }),
    }
}

/// The text of a config.
///
/// # Errors
/// [`ConfigError::Unreadable`], [`ConfigError::TooLarge`], [`ConfigError::NotText`].
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge { path: path.to_owned(), limit_bytes: MAX_CONFIG_BYTES });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigError::NotText { path: path.to_owned(), line }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_config_wins_and_a_named_one_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let (here, system) = (folder.path().join("here"), folder.path().join("system.toml"));
        std::fs::create_dir(&here).unwrap();
        let find = |explicit: Option<&str>, variable: Option<&str>| {
            locate_from(explicit.map(Path::new), variable.map(OsString::from), &here, &system)
        };

        let missing = find(None, None).unwrap_err();
        assert!(matches!(&missing, ConfigError::Missing { looked } if looked.len() == 2), "{missing}");
        std::fs::write(&system, "").unwrap();
        assert_eq!(find(None, None).unwrap(), system);
        std::fs::write(here.join(LOCAL_CONFIG), "").unwrap();
        assert_eq!(find(None, Some("")).unwrap(), here.join(LOCAL_CONFIG));
        std::fs::write(here.join("mine.toml"), "").unwrap();
        assert_eq!(find(None, Some("mine.toml")).unwrap(), here.join("mine.toml"));
        assert_eq!(find(Some("lifeboat.toml"), Some("mine.toml")).unwrap(), here.join(LOCAL_CONFIG));
        let gone = find(Some("gone.toml"), Some("mine.toml")).unwrap_err();
        assert!(gone.to_string().ends_with("gone.toml does not exist (--config names it)"), "{gone}");
        let gone = find(None, Some("gone.toml")).unwrap_err();
        assert!(gone.to_string().contains("$LIFEBOAT_CONFIG names it"), "{gone}");
    }

    #[test]
    fn what_is_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lifeboat.toml");
        std::fs::write(&path, b"a = 1\nb = \"\xff\"\n").unwrap();
        assert!(matches!(read(&path), Err(ConfigError::NotText { line: 2, .. })));
        std::fs::write(&path, " ".repeat(1024 * 1024 + 1)).unwrap();
        assert!(matches!(read(&path), Err(ConfigError::TooLarge { .. })));
        assert!(matches!(read(folder.path()), Err(ConfigError::Unreadable { .. })));
    }
}
