//! docs/ERRORS.md, written from the table in src/error.rs, which is read as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use syn::parse::{Parse, ParseStream};
use syn::visit::Visit;
use syn::{Ident, LitStr, Token};

/// The generated file, from the root.
pub(crate) const PAGE: &str = "docs/ERRORS.md";
const SOURCE: &str = "src/error.rs";

/// Writes the page.
pub(crate) fn write(root: &Path) -> Result<String, String> {
    let text = page(root)?;
    let path = root.join(PAGE);
    std::fs::create_dir_all(root.join("docs")).map_err(|error| format!("docs: {error}"))?;
    std::fs::write(path, text).map_err(|error| format!("{PAGE}: {error}"))?;
    Ok(format!("wrote {PAGE}"))
}

/// What the page should be.
pub(crate) fn page(root: &Path) -> Result<String, String> {
    let source = std::fs::read_to_string(root.join(SOURCE)).map_err(|error| format!("{SOURCE}: {error}"))?;
    render(&source).map_err(|error| format!("{SOURCE}: {error}"))
}

fn render(source: &str) -> Result<String, String> {
    let file = syn::parse_file(source).map_err(|error| error.to_string())?;
    let mut codes = None;
    for item in &file.items {
        if let syn::Item::Macro(item) = item
            && item.mac.path.is_ident("codes")
        {
            codes = Some(item.mac.parse_body::<Codes>().map_err(|error| format!("codes!: {error}"))?);
        }
    }
    let codes = codes.ok_or("there is no codes! table")?;
    let mut exits = Exits::default();
    exits.visit_file(&file);

    let mut page = String::from(
        "# Errors and exit codes\n\n\
         Written by `cargo xtask errors` from src/error.rs; `cargo xtask tidy` fails when it is stale. Codes are stable:\n\
         scripts and runbooks may rely on them. A message is followed by a hint, which is the next thing to type or to look at.\n\n\
         Exit code 0 means done, and nothing else does.\n\n\
         | exit code | code | what it means |\n|---|---|---|\n",
    );
    for row in &codes.0 {
        let kind = row.kind.to_string();
        let exit = exits.0.get(&kind).ok_or_else(|| format!("kind {kind} has no exit code"))?;
        // Writing into a string cannot fail.
        let _ = writeln!(page, "| {exit} | `{}` | {} |", row.name.value(), row.meaning.value().replace('|', "\\|"));
    }
    page.push_str(
        "\nA drill that fails exits with 21 whatever made it fail: the code in brackets says what. Of several jobs the worst exit code\n\
         counts.\n",
    );
    page.push_str("\n`status --nagios` speaks 0, 1, 2 and 3 in Nagios' sense instead.\n");
    Ok(page)
}

/// `Variant, "name", Kind, "meaning";`
struct Row {
    name: LitStr,
    kind: Ident,
    meaning: LitStr,
}

struct Codes(Vec<Row>);

impl Parse for Codes {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut rows = Vec::new();
        while !input.is_empty() {
            input.parse::<Ident>()?;
            input.parse::<Token![,]>()?;
            let name = input.parse()?;
            input.parse::<Token![,]>()?;
            let kind = input.parse()?;
            input.parse::<Token![,]>()?;
            let meaning = input.parse()?;
            input.parse::<Token![;]>()?;
            rows.push(Row { name, kind, meaning });
        }
        Ok(Self(rows))
    }
}

/// The arms of `Kind::exit_code`.
#[derive(Default)]
struct Exits(BTreeMap<String, u8>);

impl<'ast> Visit<'ast> for Exits {
    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if function.sig.ident == "exit_code" {
            syn::visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if let (syn::Pat::Path(kind), syn::Expr::Lit(exit)) = (&arm.pat, &*arm.body)
            && let (Some(kind), syn::Lit::Int(exit)) = (kind.path.segments.last(), &exit.lit)
            && let Ok(exit) = exit.base10_parse()
        {
            self.0.insert(kind.ident.to_string(), exit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_row() {
        let page = page(&crate::root()).unwrap();
        assert!(page.contains("| 12 | `no-identity` | None of the identities given opens this backup. |"), "{page}");
        assert!(page.contains("| 78 | `config-invalid` |"), "{page}");
        let source = std::fs::read_to_string(crate::root().join(SOURCE)).unwrap();
        let declared = source.lines().filter(|line| line.starts_with("    ") && line.ends_with("\";")).count();
        assert_eq!(page.lines().filter(|line| line.contains(" | `")).count(), declared);
    }

    #[test]
    fn a_kind_without_an_exit_code_is_noticed() {
        let source =
            "impl Kind { fn exit_code(self) -> u8 { match self { Self::A => 1 } } } codes! { X, \"x\", B, \"m\"; }";
        assert_eq!(render(source).unwrap_err(), "kind B has no exit code");
    }
}
