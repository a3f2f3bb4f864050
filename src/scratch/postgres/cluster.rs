//! Makes the data folder: initdb, and the uid that the server will have gets what it made. (initdb wants to know the
//! name of the user that it runs as, and that uid has none.)
//!
//! The template databases get the source's encoding and locale. A locale that this machine lacks does not keep a drill
//! from running: the nearest one takes its place, and that is said. What databases are made later on is not known here.

use std::time::Duration;

use super::place::Place;
use super::runner::Runner;
use super::{Durability, SUPERUSER, ServerError, ServerOptions};
use crate::scratch::confine::hand_over;

/// How long initdb may take; it takes about a second.
const INITDB_DEADLINE: Duration = Duration::from_secs(180);
/// What initdb says of a locale that is not there, or not for this encoding.
const LOCALE_COMPLAINTS: [&str; 4] =
    ["invalid locale name", "invalid locale settings", "encoding mismatch", "could not find suitable encoding"];
/// The first major versions whose initdb knows `--locale-provider`, the provider `builtin`, and checksums by default.
const PROVIDERS_SINCE: u32 = 15;
const BUILTIN_SINCE: u32 = 17;
const CHECKSUMS_SINCE: u32 = 18;

/// A locale for the template databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locale<'a> {
    /// The C library's.
    Libc { collate: &'a str, ctype: &'a str },
    /// The server's own C.UTF-8, which is on every machine.
    Builtin,
}

impl Locale<'_> {
    fn describe(self) -> String {
        match self {
            Self::Libc { collate, ctype } if collate == ctype => collate.to_owned(),
            Self::Libc { collate, ctype } => format!("{collate} (LC_CTYPE {ctype})"),
            Self::Builtin => "the server's own C.UTF-8".to_owned(),
        }
    }

    fn arguments(self, major: u32) -> Vec<String> {
        let (collate, ctype) = match self {
            Self::Libc { collate, ctype } => (collate, ctype),
            Self::Builtin => ("C", "C"),
        };
        let mut arguments =
            vec!["--locale=C".to_owned(), format!("--lc-collate={collate}"), format!("--lc-ctype={ctype}")];
        match self {
            Self::Builtin => {
                arguments.extend(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"].map(str::to_owned));
            }
            Self::Libc { .. } if major >= PROVIDERS_SINCE => arguments.push("--locale-provider=libc".to_owned()),
            Self::Libc { .. } => {}
        }
        arguments
    }
}

/// What may stand in for a locale that is not there, the nearest first.
fn substitutes(encoding: &str, major: u32) -> Vec<Locale<'static>> {
    let mut all = Vec::new();
    if encoding.eq_ignore_ascii_case("UTF8") || encoding.eq_ignore_ascii_case("UTF-8") {
        if major >= BUILTIN_SINCE {
            all.push(Locale::Builtin);
        }
        all.push(Locale::Libc { collate: "C.UTF-8", ctype: "C.UTF-8" });
    }
    all.push(Locale::Libc { collate: "C", ctype: "C" });
    all
}

/// Makes the data folder; gives what is not as wished, in sentences.
pub(super) async fn create(options: &ServerOptions<'_>, place: &Place) -> Result<Vec<String>, ServerError> {
    let remarks = make(options, place).await?;
    if let Some((uid, gid)) = options.confinement.owner() {
        hand_over(place.data(), uid, gid).map_err(ServerError::Confine)?;
    }
    Ok(remarks)
}

async fn make(options: &ServerOptions<'_>, place: &Place) -> Result<Vec<String>, ServerError> {
    let wished = Locale::Libc { collate: options.collate, ctype: options.ctype };
    let refusal = match initdb(options, place, wished).await? {
        Made::Yes => return Ok(Vec::new()),
        Made::LocaleMissing(refusal) => refusal,
    };
    for locale in substitutes(options.encoding, options.tools.major) {
        if let Made::Yes = initdb(options, place, locale).await? {
            return Ok(vec![format!(
                "the server lacks the locale {}: it has {} instead, so text may sort and compare differently",
                wished.describe(),
                locale.describe()
            )]);
        }
    }
    // It names what was asked for.
    Err(refusal)
}

enum Made {
    Yes,
    /// The locale is not there, or not for this encoding; what initdb said.
    LocaleMissing(ServerError),
}

async fn initdb(options: &ServerOptions<'_>, place: &Place, locale: Locale<'_>) -> Result<Made, ServerError> {
    let major = options.tools.major;
    let mut tool = options
        .tools
        .tool("initdb")
        .arg("-D")
        .arg(place.data())
        .args(["--no-sync", "--auth=trust"])
        .arg(format!("--username={SUPERUSER}"))
        .arg(format!("--encoding={}", options.encoding))
        .args(locale.arguments(major))
        // Otherwise it compares the machine's time zone with every one that there is.
        .env("TZ", "UTC")
        .current_dir(place.data())
        .stdout_limit_bytes(0)
        .deadline(INITDB_DEADLINE);
    if major >= CHECKSUMS_SINCE && options.durability == Durability::Off {
        tool = tool.arg("--no-data-checksums");
    }
    let dir = place.shown();
    let output = match Runner::of(options, place).run_named(tool).await {
        Ok(output) if output.status.success() => return Ok(Made::Yes),
        Ok(output) => output,
        Err(cause) => return Err(ServerError::Tool { dir, cause }),
    };
    let about_locale = LOCALE_COMPLAINTS.iter().any(|complaint| output.stderr_tail.contains(complaint));
    let refusal = ServerError::Initdb { dir, status: output.status, said: output.stderr_tail };
    if about_locale { Ok(Made::LocaleMissing(refusal)) } else { Err(refusal) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_locale_stands_in() {
        let names =
            |encoding, major| substitutes(encoding, major).into_iter().map(Locale::describe).collect::<Vec<_>>();
        assert_eq!(names("UTF8", 15), ["C.UTF-8", "C"]);
        assert_eq!(names("utf-8", 17), ["the server's own C.UTF-8", "C.UTF-8", "C"]);
        assert_eq!(names("LATIN1", 18), ["C"]);
    }
}
