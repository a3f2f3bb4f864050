//! The chat database that is benched: users, messages with two indexes, sessions with jsonb that are updated. Everything
//! follows from row numbers, so that two machines bench the same bytes.

/// How large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chat {
    pub(super) messages: u64,
    users: u64,
    sessions: u64,
    /// Parts that messages are put together from: more than a compressor's window holds.
    phrases: u64,
}

/// Counts and order-independent sums of all tables, and whether everything that hangs on them is there.
pub(super) const FINGERPRINT: &str = "set timezone = 'UTC'; select
    (select count(*) || ' ' || sum(hashtextextended(t::text, 0)::numeric) from messages t),
    (select count(*) || ' ' || sum(hashtextextended(t::text, 0)::numeric) from users t),
    (select count(*) || ' ' || sum(hashtextextended(t::text, 0)::numeric) from sessions t),
    (select count(*) from pg_index where indisvalid), (select count(*) from pg_constraint where convalidated),
    (select last_value from messages_id_seq)";

impl Chat {
    /// The scale that the targets are meant for: about 1.4 GB.
    pub(super) const FULL: Self = Self { messages: 4_000_000, users: 100_000, sessions: 700_000, phrases: 200_000 };
    /// To see whether the bench works.
    pub(super) const QUICK: Self = Self { messages: 20_000, users: 500, sessions: 1_500, phrases: 1_000 };

    /// Makes and fills the tables, in a statement that psql sends as one; vacuum is the caller's.
    pub(super) fn create(&self) -> String {
        let Self { users, sessions, phrases, .. } = self;
        format!(
            "set work_mem = '512MB';
             create function word(n bigint) returns text language sql immutable as
                 $$ select translate(substr(md5((n % 5000)::text), 1, (3 + n % 6)::integer), '0123456789', 'ghijklmnop') $$;
             create unlogged table phrases as
                 select p as id, string_agg(word((p * 7919 + w * w * 104729 + p * w) % 1000003), ' ' order by w) as text
                 from generate_series(1::bigint, {phrases}) as p, generate_series(1, 7) as w group by p;
             create table users (id bigint primary key, email text not null unique, name text not null, created_at timestamptz not null);
             insert into users select i, 'user' || i || '@example.org', word(i * 31) || ' ' || word(i * 57),
                 timestamptz '2025-01-01 00:00:00+00' + i * interval '97 seconds' from generate_series(1::bigint, {users}) as i order by i;
             create table messages (id bigserial primary key, chat bigint not null, sender bigint not null, body text not null, created_at timestamptz not null);
             {};
             create index messages_by_chat on messages (chat, created_at);
             create table sessions (id bigint primary key, user_id bigint not null references users, data jsonb not null, updated_at timestamptz not null);
             insert into sessions select i, 1 + i * 48271 % {users}, {}, timestamptz '2026-01-01 00:00:00+00' + i * interval '13 seconds'
                 from generate_series(1::bigint, {sessions}) as i order by i;
             update sessions set data = {}, updated_at = updated_at + interval '1 hour' where id % 5 = 0;
             analyze;",
            self.messages(0, self.messages),
            session("i", 0),
            session("id", 1),
        )
    }

    /// 2 % messages more.
    pub(super) fn append(&self) -> String {
        format!("set work_mem = '512MB'; {}", self.messages(self.messages, self.messages / 50))
    }

    /// The newest 1 % of the sessions, changed.
    pub(super) fn update(&self) -> String {
        let from = self.sessions - self.sessions / 100;
        format!(
            "update sessions set data = {}, updated_at = updated_at + interval '1 day' where id > {from}",
            session("id", 2)
        )
    }

    /// Appends messages after the first `after` ones.
    fn messages(&self, after: u64, more: u64) -> String {
        let Self { users, phrases, .. } = self;
        let phrase = |factor: u64, name: &str| {
            format!("join phrases as {name} on {name}.id = 1 + (i * {factor} + i / 7) % {phrases}")
        };
        format!(
            "insert into messages (chat, sender, body, created_at)
             select 1 + i * 7919 % 50021, 1 + i * 48271 % {users}, a.text || ', ' || b.text || '. ' || c.text || ' #' || i,
                 timestamptz '2025-06-01 00:00:00+00' + i * interval '5 seconds'
             from generate_series({}::bigint, {}) as i {} {} {} order by i",
            after + 1,
            after + more,
            phrase(16_807, "a"),
            phrase(69_621, "b"),
            phrase(39_373, "c"),
        )
    }
}

/// A session's document in a version.
fn session(id: &str, version: u64) -> String {
    format!(
        "jsonb_build_object('version', {version}, 'token', md5({id}::text || '-{version}'), 'agent', 'Mozilla/5.0 (X11; Linux x86_64) ' || word({id} * 3), \
         'cart', jsonb_build_array({id} % 911, {id} * 7 % 1013, {id} * 11 % 1201), 'flags', jsonb_build_object('beta', {id} % 3 = 0, 'dark', {id} % 2 = 0), \
         'seen', repeat(word({id} + {version}) || ' ', 12))"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_day_follows_on_the_first() {
        let chat = Chat::QUICK;
        assert!(chat.create().contains("generate_series(1::bigint, 20000) as i"));
        assert!(chat.append().contains("generate_series(20001::bigint, 20400) as i"));
        assert!(chat.update().contains("where id > 1485"));
        assert_ne!(session("id", 1), session("id", 2));
    }
}
