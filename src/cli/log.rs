//! The log on stderr: a line an event, as text or as JSON.

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::{LookupSpan, Scope};

use super::args::{Cli, Command, LogFormat};

/// Sends the library's log to stderr: errors, of the daemon what happens; more with `-v`, everything with `-vv`.
/// `LIFEBOAT_LOG` overrides it.
pub fn set_up_tracing(cli: &Cli) {
    let default = match (cli.global.verbose, &cli.command) {
        (0, Command::Daemon(_)) if !cli.global.quiet => "error,lifeboat=info",
        (0, _) => "error",
        (1, _) => "lifeboat=info",
        _ => "lifeboat=debug",
    };
    let filter = EnvFilter::try_from_env("LIFEBOAT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    match cli.global.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.event_format(Json).init(),
    }
}

/// `{ "time", "level", "message", ... }`: the event's own fields, and those of the run that it belongs to.
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Map::new();
        fields.insert("time".to_owned(), Value::String(time));
        fields.insert("level".to_owned(), Value::String(event.metadata().level().as_str().to_lowercase()));
        for span in ctx.event_scope().into_iter().flat_map(Scope::from_root) {
            let extensions = span.extensions();
            let Some(text) = extensions.get::<FormattedFields<N>>() else { continue };
            // Ids and names, which hold neither spaces nor quotes.
            for (name, value) in text.fields.split_whitespace().filter_map(|field| field.split_once('=')) {
                fields.insert(name.to_owned(), Value::String(value.to_owned()));
            }
        }
        event.record(&mut Fields(&mut fields));
        writeln!(to, "{}", Value::Object(fields))
    }
}

/// Fields of an event, into an object.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name().to_owned(), Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), Value::String(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}
