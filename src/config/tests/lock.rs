//! Vaults that hold what is stored.

use super::*;
use crate::storage::LockMode;

fn locked(retention: &str, schedule: &str) -> String {
    format!(
        "[vault.main]\nurl = \"s3://backups/shop\"\nlock = \"governance\"\nrecipients = [\"{RECIPIENT}\"]\n[job.shop]\nschedule = \
         \"{schedule}\"\nretention = {{ {retention} }}\n[job.shop.source.files]\nkind = \"files\"\npaths = [\"/srv\"]\n"
    )
}

#[test]
fn a_lock_is_one_of_two_words_and_a_bucket_s() {
    let text = locked("keep_at_least = \"14d\", delete_after = \"30d\"", "0 2 * * *");
    let settings = parse(&text).unwrap();
    assert_eq!(settings.vaults["main"].s3.lock, Some(LockMode::Governance));
    let compliance = parse(&text.replace("governance", "compliance")).unwrap();
    assert_eq!(compliance.vaults["main"].s3.lock, Some(LockMode::Compliance));
    assert_eq!(settings.without_secrets(&"shop".parse().unwrap())["vault"]["s3"]["lock"], "governance");
    let wrong = problems(&text.replace("\"governance\"", "\"legal\""));
    assert!(wrong[0].message.contains("`lock` is \"governance\" or \"compliance\""), "{wrong:?}");
    let folder = problems(&text.replace("s3://backups/shop", "/srv/backups"));
    assert!(folder[0].message.contains("`lock` belongs to a vault in a bucket"), "{folder:?}");
}

#[test]
fn what_leaves_no_room_for_holding_is_refused_and_what_is_proposed_holds() {
    let of_lock = |text: &str| -> Vec<Finding> {
        let all = check(&parse(text).unwrap(), now(), &BTreeMap::new());
        all.into_iter().filter(|finding| finding.message.contains("holds")).collect()
    };
    assert_eq!(of_lock(&locked("keep_at_least = \"14d\", delete_after = \"30d\"", "0 2 * * *")), []);
    // Two days and an hour are needed for erasing, and nothing is left over for holding.
    let tight = |delete_after: &str| {
        locked(&format!("keep_at_least = \"14d\", delete_after = \"{delete_after}\""), "0 2 * * *")
    };
    let findings = of_lock(&tight("18d"));
    assert_eq!((findings.len(), findings[0].severity), (1, Severity::Error), "{findings:?}");
    assert!(findings[0].message.contains("14d12h old"), "{}", findings[0].message);
    let hint = findings[0].hint.clone().unwrap();
    let figure = hint.strip_prefix("write delete_after = \"").unwrap().trim_end_matches('"');
    assert_eq!(of_lock(&tight(figure)), [], "{hint}");
    // What cannot be erased in time is told once, by the retention's own arithmetic.
    let text = tight("15d");
    assert_eq!(of_lock(&text), []);
    assert!(worst(&text).iter().any(|finding| finding.code == Code::RetentionUnkeepable));
    let thinned = of_lock(&locked("keep_at_least = \"14d\", delete_after = \"30d\", daily = 7", "0 2 * * *"));
    assert_eq!((thinned.len(), thinned[0].severity), (1, Severity::Note));
    assert!(thinned[0].message.contains("until it is 23d22h old"), "{}", thinned[0].message);
}
