//! Whether a server that was made for a drill can have a database that sorts as the source's does: named before anything
//! is loaded, with what to type. A server that was not made for the drill is not judged here: a locale that it lacks it
//! refuses itself.

use crate::domain::contents::{LocaleProvider, PostgresFacts};
use crate::error::{Code, Error, Result};
use crate::sources::postgres::connect::Access;
use crate::sources::postgres::examine::locales;

use super::super::host::Host;

/// Makes sure that the server's templates have the source's locales, and that it knows ICU where the source needs it.
///
/// # Errors
/// What the host lacks; and when the server does not answer.
pub(super) fn must_be_there(host: &Host, access: &Access, facts: &PostgresFacts) -> Result<()> {
    let lacks = |what: String, hint: String| {
        Err(Error::new(Code::ScratchFailed, format!("the scratch server lacks {what}")).with_hint(hint))
    };
    let PostgresFacts { collate, ctype, locale_provider, .. } = facts;
    let there = host.runtime.block_on(locales(access))?;
    // The server was made with the source's, or with others where these are not to be had.
    for (wanted, found) in [(collate, &there.collate), (ctype, &there.ctype)] {
        if wanted != found {
            let what = format!("the locale {wanted} of the source: this host does not have it");
            return lacks(what, how_to_get(wanted));
        }
    }
    if *locale_provider == LocaleProvider::Icu && !there.has_icu {
        let major = facts.server_version_number / 10_000;
        let hint = "name the folder of one as `tools` below [job.<name>.drill.server]; Debian's have it".to_owned();
        return lacks(format!("ICU, by whose rules the source sorts: this PostgreSQL {major} is built without"), hint);
    }
    Ok(())
}

/// What to type for a locale of the C library: `de_DE.UTF-8@euro`.
fn how_to_get(locale: &str) -> String {
    let all = "apt-get install locales-all";
    // It is the source's word, and somebody will type it.
    let plain = locale.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@'));
    let (name, modifier) = locale.split_at(locale.find('@').unwrap_or(locale.len()));
    match name.split_once('.') {
        Some((language, charmap)) if plain && language.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            let charmap = if charmap.eq_ignore_ascii_case("utf8") { "UTF-8" } else { charmap };
            format!("localedef -i {language}{modifier} -f {charmap} {locale}; or all that there are: {all}")
        }
        _ => all.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_type_for_a_locale_can_be_typed() {
        let all = "apt-get install locales-all";
        let this = |line: &str| format!("{line}; or all that there are: {all}");
        assert_eq!(how_to_get("en_US.utf8"), this("localedef -i en_US -f UTF-8 en_US.utf8"));
        let with_modifier = this("localedef -i de_DE@euro -f ISO-8859-15 de_DE.ISO-8859-15@euro");
        assert_eq!(how_to_get("de_DE.ISO-8859-15@euro"), with_modifier);
        for odd in ["xx", "$(reboot).UTF-8", "-x.y", ""] {
            assert_eq!(how_to_get(odd), all);
        }
    }
}
