//! The shop's database: customers, products, orders with their lines, payments. The books are kept so that a copy
//! taken at the wrong moment would show: an order, its lines and its payments are written one after the other, in one
//! transaction, and add up.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Executor};

use super::dice::Dice;
use super::{Day, Scale, ShopError};

/// True where orders, lines and payments add up.
pub(in crate::cli::demo) const CONSISTENT_SQL: &str = "select ordered = itemised and ordered = paid from books";
/// When the newest order came in.
pub(in crate::cli::demo) const NEWEST_SQL: &str = "select max(created_at) from orders";

const SCHEMA: &str = "
pragma user_version = 7;
create table customers (
    id integer primary key, name text not null, email text not null unique, city text not null, created_at text not null
);
create table products (
    id integer primary key, sku text not null unique, name text not null,
    price_cents integer not null check (price_cents > 0), stock integer not null
);
create table orders (
    id integer primary key, customer_id integer not null references customers (id),
    status text not null check (status in ('new', 'sent', 'returned')),
    total_cents integer not null, note text, created_at text not null
);
create table order_lines (
    order_id integer not null references orders (id) on delete cascade, line integer not null,
    product_id integer not null references products (id),
    quantity integer not null check (quantity > 0), price_cents integer not null,
    primary key (order_id, line)
) without rowid;
create table payments (
    id integer primary key, order_id integer not null references orders (id) on delete cascade,
    kind text not null, amount_cents integer not null, created_at text not null
);
create index orders_by_customer on orders (customer_id);
create index orders_by_time on orders (created_at);
create index order_lines_by_product on order_lines (product_id);
create index payments_by_order on payments (order_id);
create view books as
    select (select sum(total_cents) from orders) as ordered,
        (select sum(quantity * price_cents) from order_lines) as itemised,
        (select sum(amount_cents) from payments) as paid;
";

/// Rows that travel into SQLite in one statement, as JSON: a statement a row would take a hundred times as long.
const ROWS_A_STATEMENT: usize = 2_000;
/// How far back the orders of a new shop go.
const HISTORY_DAYS: i64 = 90;
/// How long a statement waits for the other connection of this process.
const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

const FIRST_NAMES: [&str; 16] = [
    "Ada", "Björn", "Chiara", "Dmitri", "Esra", "Fatima", "Goran", "Hanna", "Ines", "Jürgen", "Katja", "Liam",
    "Mehmet", "Noor", "Olga", "Zoë",
];
const LAST_NAMES: [&str; 14] = [
    "Abel",
    "Brandt",
    "Çelik",
    "Dubois",
    "Eriksen",
    "Ferrari",
    "García",
    "Huber",
    "Ivanova",
    "Jansen",
    "Kowalski",
    "Lindqvist",
    "Müller",
    "Novák",
];
const CITIES: [&str; 8] = ["Århus", "Basel", "Gent", "Kraków", "Lübeck", "Málaga", "Tartu", "Zürich"];
pub(super) const THINGS: [&str; 10] =
    ["teapot", "lantern", "blanket", "bicycle bell", "bread knife", "compass", "kite", "notebook", "stool", "umbrella"];
pub(super) const COLOURS: [&str; 8] = ["amber", "blue", "copper", "green", "ivory", "plum", "red", "slate"];
const NOTES: [&str; 6] = [
    "please ring twice",
    "gift, no invoice inside",
    "leave with the neighbour",
    "second try",
    "call before",
    "fragile",
];

/// An order before it has a number.
pub(super) struct Order {
    pub(super) customer: u32,
    status: &'static str,
    note: Option<&'static str>,
    /// Product, quantity, price of one.
    pub(super) lines: Vec<(u32, i64, i64)>,
    /// Kind and amount.
    payments: Vec<(&'static str, i64)>,
    pub(super) total_cents: i64,
}

impl Order {
    pub(super) fn thrown(dice: &mut Dice, scale: Scale) -> Self {
        let count = 1 + dice.below(4);
        let lines: Vec<(u32, i64, i64)> = (0..count)
            .map(|_| {
                let product = 1 + dice.below(scale.products);
                (product, i64::from(1 + dice.below(3)), price_cents(product))
            })
            .collect();
        let total_cents: i64 = lines.iter().map(|(_, quantity, price)| quantity * price).sum();
        let payments = match dice.below(5) {
            0 => vec![("deposit", total_cents / 3), ("transfer", total_cents - total_cents / 3)],
            1 => vec![("transfer", total_cents)],
            _ => vec![("card", total_cents)],
        };
        let status = match dice.below(25) {
            0 => "returned",
            1..=3 => "new",
            _ => "sent",
        };
        let note = (dice.below(4) == 0).then(|| *dice.pick(&NOTES));
        Self { customer: 1 + dice.below(scale.customers), status, note, lines, payments, total_cents }
    }
}

fn price_cents(product: u32) -> i64 {
    295 + i64::from(product) * 7919 % 9_700
}

fn text(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Makes and fills the database; the number of rows.
pub(super) fn build(path: &Path, scale: Scale, now: DateTime<Utc>) -> Result<u64, ShopError> {
    on_own_runtime(path, async |options| {
        let mut db = SqliteConnection::connect_with(&options.create_if_missing(true)).await?;
        let mut changes = db.begin().await?;
        changes.execute(SCHEMA).await?;
        let rows = fill(&mut changes, scale, now).await?;
        changes.commit().await?;
        // Closing writes the whole log back, so that the shop begins as one file.
        db.close().await?;
        Ok(rows)
    })
}

/// Runs database work to its end on this thread.
fn on_own_runtime<T>(
    path: &Path,
    work: impl AsyncFnOnce(SqliteConnectOptions) -> Result<T, sqlx::Error>,
) -> Result<T, ShopError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| ShopError::Io { verb: "start the writing of", path: path.to_owned(), cause })?;
    runtime.block_on(work(options(path))).map_err(|cause| ShopError::Database { path: path.to_owned(), cause })
}

/// How the shop opens its database: as shops do, with a log and a little faith.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
}

async fn fill(db: &mut SqliteConnection, scale: Scale, now: DateTime<Utc>) -> Result<u64, sqlx::Error> {
    let opened = now - TimeDelta::days(HISTORY_DAYS);
    let mut dice = Dice::of("customers");
    let customers = (1..=scale.customers)
        .map(|id| {
            let (first, last) = (dice.pick(&FIRST_NAMES), dice.pick(&LAST_NAMES));
            let since = opened - TimeDelta::hours(i64::from(dice.below(20_000)));
            json!([id, format!("{first} {last}"), format!("customer{id}@example.org"), dice.pick(&CITIES), text(since)])
        })
        .collect();
    let products = (1..=scale.products)
        .map(|id| {
            let name = format!("{} {}", dice.pick(&COLOURS), dice.pick(&THINGS));
            json!([id, format!("SKU-{id:05}"), name, price_cents(id), dice.below(500)])
        })
        .collect();

    let mut dice = Dice::of("orders");
    let (mut orders, mut lines, mut payments) = (Vec::new(), Vec::new(), Vec::new());
    for id in 1..=scale.orders {
        // Evenly up to now: the last one came in minutes ago.
        let age = TimeDelta::seconds(HISTORY_DAYS * 86_400 * i64::from(scale.orders - id) / i64::from(scale.orders));
        push(&mut orders, &mut lines, &mut payments, id.into(), &Order::thrown(&mut dice, scale), now - age);
    }
    let mut rows = 0;
    rows += insert(db, CUSTOMERS, customers).await?;
    rows += insert(db, PRODUCTS, products).await?;
    rows += insert(db, ORDERS, orders).await?;
    rows += insert(db, LINES, lines).await?;
    rows += insert(db, PAYMENTS, payments).await?;
    Ok(rows)
}

const CUSTOMERS: &str = "insert into customers (id, name, email, city, created_at) \
     select value->>0, value->>1, value->>2, value->>3, value->>4 from json_each(?1)";
const PRODUCTS: &str = "insert into products (id, sku, name, price_cents, stock) \
     select value->>0, value->>1, value->>2, value->>3, value->>4 from json_each(?1)";
const ORDERS: &str = "insert into orders (id, customer_id, status, total_cents, note, created_at) \
     select value->>0, value->>1, value->>2, value->>3, value->>4, value->>5 from json_each(?1)";
const LINES: &str = "insert into order_lines (order_id, line, product_id, quantity, price_cents) \
     select value->>0, value->>1, value->>2, value->>3, value->>4 from json_each(?1)";
const PAYMENTS: &str = "insert into payments (order_id, kind, amount_cents, created_at) \
     select value->>0, value->>1, value->>2, value->>3 from json_each(?1)";

fn push(
    orders: &mut Vec<Value>,
    lines: &mut Vec<Value>,
    payments: &mut Vec<Value>,
    id: i64,
    order: &Order,
    at: DateTime<Utc>,
) {
    let at = text(at);
    orders.push(json!([id, order.customer, order.status, order.total_cents, order.note, at]));
    for (index, (product, quantity, price)) in order.lines.iter().enumerate() {
        lines.push(json!([id, index + 1, product, quantity, price]));
    }
    payments.extend(order.payments.iter().map(|(kind, amount)| json!([id, kind, amount, at])));
}

async fn insert(db: &mut SqliteConnection, sql: &'static str, rows: Vec<Value>) -> Result<u64, sqlx::Error> {
    for batch in rows.chunks(ROWS_A_STATEMENT) {
        let batch = Value::Array(batch.to_vec()).to_string();
        sqlx::query(sql).bind(batch).execute(&mut *db).await?;
    }
    Ok(rows.len() as u64)
}

/// Takes one order, as a shop does: a transaction of several statements. `db` must enforce foreign keys.
pub(super) async fn take_order(db: &mut SqliteConnection, order: &Order, at: DateTime<Utc>) -> Result<(), sqlx::Error> {
    // Immediate: a transaction that reads first and writes later could be refused half-way.
    let mut changes = db.begin_with("begin immediate").await?;
    let id: i64 = sqlx::query_scalar("select coalesce(max(id), 0) + 1 from orders").fetch_one(&mut *changes).await?;
    let (mut orders, mut lines, mut payments) = (Vec::new(), Vec::new(), Vec::new());
    push(&mut orders, &mut lines, &mut payments, id, order, at);
    insert(&mut changes, ORDERS, orders).await?;
    insert(&mut changes, LINES, lines).await?;
    insert(&mut changes, PAYMENTS, payments).await?;
    changes.commit().await
}

/// One order in a hundred is new, as many are sent, a few are returned and erased.
pub(super) fn change_a_day(path: &Path, scale: Scale, now: DateTime<Utc>) -> Result<Day, ShopError> {
    let some = i64::from(scale.orders / 100).max(2);
    on_own_runtime(path, async |options| {
        let mut db = SqliteConnection::connect_with(&options).await?;
        let mut dice = Dice::of("the next day");
        for _ in 0..some {
            take_order(&mut db, &Order::thrown(&mut dice, scale), now).await?;
        }
        let sent = "update orders set status = 'sent' \
             where id in (select id from orders where status = 'new' order by id limit ?1)";
        let updated = sqlx::query(sent).bind(some).execute(&mut db).await?.rows_affected();
        // Lines and payments go with them.
        let erased = "delete from orders \
             where id in (select id from orders where status = 'returned' order by id limit ?1)";
        let deleted = sqlx::query(erased).bind((some / 10).max(1)).execute(&mut db).await?.rows_affected();
        db.close().await?;
        Ok(Day {
            orders_added: some.cast_unsigned(),
            orders_updated: updated,
            orders_deleted: deleted,
            ..Day::default()
        })
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Scale;
    use super::*;

    /// Differs when any row of the shop does.
    pub(crate) const FINGERPRINT: &str = "select (select group_concat(id || name || email || city || created_at) from customers) \
         || (select group_concat(id || sku || name || price_cents || stock) from products) \
         || (select group_concat(id || customer_id || status || total_cents || coalesce(note, '-') || created_at) from orders) \
         || (select group_concat(order_id || line || product_id || quantity || price_cents) from order_lines) \
         || (select group_concat(id || order_id || kind || amount_cents || created_at) from payments)";

    /// One row, one column, as text, over a connection of its own.
    pub(crate) fn ask(path: &Path, sql: &'static str) -> String {
        on_own_runtime(path, async |options| {
            let mut db = SqliteConnection::connect_with(&options).await?;
            let row = sqlx::query(sql).fetch_one(&mut db).await?;
            let value = sqlx::Row::try_get_unchecked::<String, _>(&row, 0)?;
            db.close().await?;
            Ok(value)
        })
        .unwrap()
    }

    const FEW: Scale =
        Scale { customers: 30, products: 9, orders: 2_500, pictures: 0, invoices: 0, exports: 0, video_bytes: 0 };

    #[test]
    fn the_books_are_right_and_a_wrong_entry_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop.db");
        let now = "2026-11-22T02:00:00Z".parse().unwrap();
        let rows = build(&path, FEW, now).unwrap();
        assert_eq!(ask(&path, "pragma journal_mode"), "wal");
        assert_eq!(ask(&path, "pragma user_version"), "7");
        assert_eq!(ask(&path, "pragma integrity_check"), "ok");
        assert_eq!(ask(&path, "select count(*) from pragma_foreign_key_check"), "0");
        assert_eq!(ask(&path, CONSISTENT_SQL), "1");
        assert_eq!(ask(&path, NEWEST_SQL), "2026-11-22 02:00:00");
        assert_eq!(ask(&path, "select count(*) from orders"), "2500");
        let days: u32 = ask(&path, "select count(distinct date(created_at)) from orders").parse().unwrap();
        assert!(days > 80);
        let all = "select (select count(*) from customers) + (select count(*) from products) + (select count(*) from orders) \
             + (select count(*) from order_lines) + (select count(*) from payments)";
        assert_eq!(ask(&path, all), rows.to_string());
        ask(&path, "delete from payments where id = 1700 returning 'gone'");
        assert_eq!(ask(&path, CONSISTENT_SQL), "0");
    }
}
