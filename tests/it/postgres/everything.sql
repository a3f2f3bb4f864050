-- One of everything that a database can hold: every CREATE of the manual, with the odd ones among them. Loaded into an
-- empty database `everything` by a superuser, with psql -v ON_ERROR_STOP=1. For PostgreSQL 12 and newer: what a version does
-- not know yet is left out, or said as it is said there.
--
-- Not in it: security labels (no provider is part of PostgreSQL), tablespaces (a place on a disk that two servers of one
-- machine cannot share), temporary objects (nobody else can see them).

SET client_min_messages = warning;

SELECT current_setting('server_version_num')::integer / 10000 AS major \gset
SELECT :major >= 13 AS since_13, :major >= 14 AS since_14, :major >= 15 AS since_15, :major >= 18 AS since_18 \gset
SELECT CASE WHEN :major >= 13 THEN 'xid8' ELSE 'text' END AS xid8,
       CASE WHEN :major >= 13 THEN 'pg_snapshot' ELSE 'txid_snapshot' END AS snapshot,
       CASE WHEN :major >= 13 THEN 'regcollation' ELSE 'text' END AS regcollation,
       CASE WHEN :major >= 13 THEN 'BEFORE' ELSE 'AFTER' END AS before,
       CASE WHEN :major >= 13 THEN ', FUNCTION 4 btequalimage(oid)' ELSE '' END AS equal_image,
       CASE WHEN :major >= 14 THEN 'int8multirange' ELSE 'text' END AS int8multirange,
       CASE WHEN :major >= 14 THEN 'Infinity' ELSE 'NaN' END AS infinity,
       CASE WHEN :major >= 14 THEN '-Infinity' ELSE 'NaN' END AS minus_infinity,
       CASE WHEN :major >= 14 THEN 'COMPRESSION pglz' ELSE '' END AS compressed,
       CASE WHEN :major >= 14 THEN '(length(body))' ELSE 'body' END AS length_of_body,
       CASE WHEN :major >= 15 THEN 'UNLOGGED' ELSE '' END AS unlogged,
       CASE WHEN :major >= 15 THEN 'NULLS NOT DISTINCT' ELSE '' END AS nulls_not_distinct,
       CASE WHEN :major >= 15 THEN 'WITH (security_invoker)' ELSE '' END AS as_invoker,
       CASE WHEN :major >= 15 THEN 'numeric(5, -2)' ELSE 'numeric(7, 2)' END AS scaled
\gset

-- Roles, memberships, settings. ----------------------------------------------------------------------------------

CREATE ROLE "o'wner ""x"".y" NOLOGIN;
CREATE ROLE reader NOLOGIN;
CREATE ROLE writer LOGIN PASSWORD 'not a secret' CONNECTION LIMIT 7 VALID UNTIL '2030-01-01 00:00:00+00';
CREATE ROLE boss CREATEDB CREATEROLE INHERIT IN ROLE reader ADMIN writer;
GRANT reader TO writer WITH ADMIN OPTION;
ALTER ROLE writer SET work_mem = '3MB';
ALTER ROLE writer SET search_path = odd, "$user", public;
ALTER ROLE reader IN DATABASE everything SET statement_timeout = '17min';
COMMENT ON ROLE reader IS 'reads; it''s all it does \ really';

-- The database's own. --------------------------------------------------------------------------------------------

ALTER DATABASE everything SET datestyle = 'German, DMY';
ALTER DATABASE everything SET intervalstyle = 'sql_standard';
ALTER DATABASE everything SET bytea_output = 'escape';
ALTER DATABASE everything SET timezone = 'Asia/Kathmandu';
ALTER DATABASE everything SET extra_float_digits = -3;
ALTER DATABASE everything SET search_path = 'odd', 'pg_catalog';
ALTER DATABASE everything CONNECTION LIMIT 77;
REVOKE TEMPORARY ON DATABASE everything FROM PUBLIC;
GRANT CREATE ON DATABASE everything TO "o'wner ""x"".y" WITH GRANT OPTION;
COMMENT ON DATABASE everything IS E'one of\neverything';

-- Schemas, extensions. -------------------------------------------------------------------------------------------

CREATE SCHEMA odd;
CREATE SCHEMA "sch ""e"".ma
newline" AUTHORIZATION "o'wner ""x"".y";
CREATE SCHEMA empty_schema;
GRANT USAGE ON SCHEMA odd TO reader WITH GRANT OPTION;
GRANT ALL ON SCHEMA odd TO "o'wner ""x"".y";
COMMENT ON SCHEMA odd IS 'odd things';
COMMENT ON SCHEMA public IS 'not as it was';
-- The tests have no client programs of 12 to 14. Those of 16 write for servers on which not everybody may create things in it.
\if :since_15
REVOKE ALL ON SCHEMA public FROM PUBLIC;
\endif

CREATE EXTENSION hstore SCHEMA public;
CREATE EXTENSION citext SCHEMA public;
CREATE EXTENSION pg_trgm SCHEMA public;
CREATE EXTENSION btree_gist SCHEMA public;
CREATE EXTENSION postgres_fdw SCHEMA public;
COMMENT ON EXTENSION hstore IS 'pairs, and a comment of our own';

-- Collations, conversions, languages, access methods. ------------------------------------------------------------

CREATE COLLATION odd.plain (LC_COLLATE = 'C', LC_CTYPE = 'C');
CREATE COLLATION odd.copied FROM "C";
COMMENT ON COLLATION odd.plain IS 'plain';
-- Built without ICU a server knows one of its collations by name, and no more.
SELECT count(*) > 1 AS icu FROM pg_collation WHERE collprovider = 'i' \gset
\if :icu
CREATE COLLATION odd.blind (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
CREATE TABLE odd.blind_names (name text COLLATE odd.blind PRIMARY KEY);
INSERT INTO odd.blind_names VALUES ('Ärger'), ('zorn');
\endif

CREATE CONVERSION odd.our_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
COMMENT ON CONVERSION odd.our_conversion IS 'from Latin';

-- Functions of its own: pg_dump takes a language for an extension's whose functions are the system's.
CREATE FUNCTION odd.twin_call() RETURNS language_handler LANGUAGE c AS '$libdir/plpgsql', 'plpgsql_call_handler';
CREATE FUNCTION odd.twin_inline(internal) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_inline_handler';
CREATE FUNCTION odd.twin_validator(oid) RETURNS void LANGUAGE c STRICT AS '$libdir/plpgsql', 'plpgsql_validator';
CREATE LANGUAGE plpgsql_twin HANDLER odd.twin_call INLINE odd.twin_inline VALIDATOR odd.twin_validator;
COMMENT ON LANGUAGE plpgsql_twin IS 'the other one';

CREATE ACCESS METHOD gist_twin TYPE INDEX HANDLER gisthandler;
CREATE ACCESS METHOD heap_twin TYPE TABLE HANDLER heap_tableam_handler;
COMMENT ON ACCESS METHOD heap_twin IS 'heap, by another name';

-- Types. ---------------------------------------------------------------------------------------------------------

CREATE TYPE odd.colour AS ENUM ('red', 'it''s "green"', 'blue');
ALTER TYPE odd.colour ADD VALUE 'orange' BEFORE 'it''s "green"';
CREATE TYPE odd.nothing_enum AS ENUM ();
CREATE DOMAIN odd.positive AS integer DEFAULT 7 NOT NULL CONSTRAINT above_zero CHECK (VALUE > 0) CHECK (VALUE < 1000000);
CREATE DOMAIN odd.even AS odd.positive CONSTRAINT is_even CHECK (VALUE % 2 = 0);
ALTER DOMAIN odd.even ADD CONSTRAINT large CHECK (VALUE > 10) NOT VALID;
CREATE DOMAIN odd.words AS text[] COLLATE odd.plain CHECK (array_length(VALUE, 1) < 9);
CREATE TYPE odd.address AS (street text COLLATE "C", "House No" integer, "zip.code" varchar(10));
CREATE TYPE odd.person AS (name text, home odd.address, age odd.positive, "tags" text[]);
CREATE TYPE odd.no_attributes AS ();
CREATE FUNCTION odd.float8_distance(float8, float8) RETURNS float8 LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1 - $2';
\if :since_14
CREATE TYPE odd.floats AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = odd.float8_distance, MULTIRANGE_TYPE_NAME = odd.many_floats);
\else
CREATE TYPE odd.floats AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = odd.float8_distance);
CREATE DOMAIN odd.many_floats AS text;
\endif
CREATE TYPE odd.never_defined;
CREATE TYPE odd.own_int;
CREATE FUNCTION odd.own_int_in(cstring) RETURNS odd.own_int LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION odd.own_int_out(odd.own_int) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE odd.own_int (INPUT = odd.own_int_in, OUTPUT = odd.own_int_out, LIKE = pg_catalog.int4, CATEGORY = 'U', DELIMITER = ';');
ALTER TYPE odd.colour OWNER TO "o'wner ""x"".y";
REVOKE USAGE ON TYPE odd.address FROM PUBLIC;
GRANT USAGE ON TYPE odd.address TO reader;
COMMENT ON TYPE odd.address IS 'where';
COMMENT ON COLUMN odd.address."House No" IS 'a number, mostly';
COMMENT ON DOMAIN odd.positive IS 'more than nothing';
COMMENT ON CONSTRAINT above_zero ON DOMAIN odd.positive IS 'above';

-- Functions, procedures, operators, aggregates, casts, transforms. ------------------------------------------------

\if :since_14
CREATE FUNCTION odd.tau() RETURNS float8 LANGUAGE sql IMMUTABLE LEAKPROOF PARALLEL SAFE COST 3 RETURN 6.283185307179586;
\else
CREATE FUNCTION odd.tau() RETURNS float8 LANGUAGE sql IMMUTABLE LEAKPROOF PARALLEL SAFE COST 3 AS 'SELECT 6.283185307179586::float8';
\endif
CREATE FUNCTION odd.add(a integer, b integer DEFAULT 1, VARIADIC more integer[] DEFAULT '{}') RETURNS integer
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog SET work_mem FROM CURRENT AS $body$
BEGIN
    -- $$ a comment with a quote ' and a \ in it
    RETURN a + b + coalesce((SELECT sum(m) FROM unnest(more) AS m), 0);
END
$body$;
CREATE FUNCTION odd.add(a text, b text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT a || b $$;
CREATE FUNCTION odd.pairs(n integer, OUT x integer, OUT "y z" text) RETURNS SETOF record ROWS 5 LANGUAGE sql
AS $$ SELECT i, i::text FROM generate_series(1, n) AS i $$;
\if :since_14
CREATE FUNCTION odd.table_of(n integer) RETURNS TABLE (i integer, squared bigint) LANGUAGE sql
BEGIN ATOMIC
    SELECT i, i::bigint * i FROM generate_series(1, n) AS i;
END;
\endif
CREATE FUNCTION odd.same(anyelement) RETURNS anyelement LANGUAGE plpgsql_twin CALLED ON NULL INPUT AS 'BEGIN RETURN $1; END';
CREATE FUNCTION odd."weird ""name"".
with newline"("odd arg" text) RETURNS text LANGUAGE sql AS $_$ SELECT $1 || '$$' $_$;
\if :since_14
CREATE PROCEDURE odd.touch(INOUT n integer, OUT twice integer) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; twice := 2 * n; END $$;
\else
CREATE PROCEDURE odd.touch(INOUT n integer) LANGUAGE plpgsql AS $$ BEGIN n := n + 1; END $$;
\endif
REVOKE EXECUTE ON FUNCTION odd.add(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION odd.add(text, text) TO reader;
GRANT EXECUTE ON PROCEDURE odd.touch(integer) TO writer WITH GRANT OPTION;
COMMENT ON FUNCTION odd.add(integer, integer, integer[]) IS 'adds';
COMMENT ON PROCEDURE odd.touch(integer) IS 'touches';

\if :since_14
CREATE FUNCTION odd.near(point, point) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN ($1 <-> $2) < 1.0;
\else
CREATE FUNCTION odd.near(point, point) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1 <-> $2) < 1.0';
\endif
CREATE OPERATOR odd.~~~ (FUNCTION = odd.near, LEFTARG = point, RIGHTARG = point, COMMUTATOR = OPERATOR(odd.~~~), RESTRICT = contsel, JOIN = contjoinsel);
COMMENT ON OPERATOR odd.~~~ (point, point) IS 'near';
CREATE OPERATOR FAMILY odd.bigs USING btree;
CREATE OPERATOR CLASS odd.big_ops FOR TYPE bigint USING btree FAMILY odd.bigs AS
    OPERATOR 1 <(bigint, bigint), OPERATOR 2 <=(bigint, bigint), OPERATOR 3 =(bigint, bigint),
    OPERATOR 4 >=(bigint, bigint), OPERATOR 5 >(bigint, bigint),
    FUNCTION 1 btint8cmp(bigint, bigint), FUNCTION 2 btint8sortsupport(internal) :equal_image;
ALTER OPERATOR FAMILY odd.bigs USING btree ADD
    OPERATOR 1 <(bigint, integer), OPERATOR 2 <=(bigint, integer), OPERATOR 3 =(bigint, integer),
    OPERATOR 4 >=(bigint, integer), OPERATOR 5 >(bigint, integer),
    FUNCTION 1 (bigint, integer) btint84cmp(bigint, integer);
COMMENT ON OPERATOR CLASS odd.big_ops USING btree IS 'big';
COMMENT ON OPERATOR FAMILY odd.bigs USING btree IS 'bigs';

CREATE AGGREGATE odd.total(bigint) (SFUNC = int8pl, STYPE = bigint, INITCOND = '0', PARALLEL = safe, COMBINEFUNC = int8pl);
CREATE AGGREGATE odd.moving(integer) (SFUNC = int4pl, STYPE = integer, INITCOND = '0', MSFUNC = int4pl, MINVFUNC = int4mi, MSTYPE = integer, MINITCOND = '0');
CREATE AGGREGATE odd.nth(float8 ORDER BY anyelement) (SFUNC = ordered_set_transition, STYPE = internal, FINALFUNC = percentile_disc_final, FINALFUNC_EXTRA, FINALFUNC_MODIFY = read_write);
COMMENT ON AGGREGATE odd.total(bigint) IS 'total';

CREATE FUNCTION odd.colour_number(odd.colour) RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT length($1::text) $$;
CREATE CAST (odd.colour AS integer) WITH FUNCTION odd.colour_number(odd.colour) AS ASSIGNMENT;
CREATE CAST (odd.own_int AS integer) WITHOUT FUNCTION;
CREATE CAST (odd.address AS varchar) WITH INOUT;
COMMENT ON CAST (odd.colour AS integer) IS 'how many letters';
CREATE TRANSFORM FOR integer LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal), TO SQL WITH FUNCTION int4recv(internal));
COMMENT ON TRANSFORM FOR integer LANGUAGE sql IS 'of no use';

-- Text search. ---------------------------------------------------------------------------------------------------

CREATE TEXT SEARCH PARSER odd.parser (START = prsd_start, GETTOKEN = prsd_nexttoken, END = prsd_end, LEXTYPES = prsd_lextype, HEADLINE = prsd_headline);
CREATE TEXT SEARCH TEMPLATE odd.template (INIT = dsimple_init, LEXIZE = dsimple_lexize);
CREATE TEXT SEARCH DICTIONARY odd.dictionary (TEMPLATE = odd.template, STOPWORDS = 'english', ACCEPT = 'false');
CREATE TEXT SEARCH CONFIGURATION odd.search (PARSER = odd.parser);
ALTER TEXT SEARCH CONFIGURATION odd.search ADD MAPPING FOR asciiword, word WITH odd.dictionary, english_stem;
COMMENT ON TEXT SEARCH PARSER odd.parser IS 'parses';
COMMENT ON TEXT SEARCH TEMPLATE odd.template IS 'a template';
COMMENT ON TEXT SEARCH DICTIONARY odd.dictionary IS 'a dictionary';
COMMENT ON TEXT SEARCH CONFIGURATION odd.search IS 'a configuration';

-- Sequences with odd steps. --------------------------------------------------------------------------------------

CREATE SEQUENCE odd.downwards INCREMENT BY -7 MAXVALUE -1 MINVALUE -1000 START -3 CACHE 5 CYCLE;
CREATE SEQUENCE odd.small AS smallint MINVALUE -32768 MAXVALUE 32767 START 32766;
CREATE SEQUENCE odd.never_called START 42 INCREMENT BY 10;
CREATE SEQUENCE odd.set_not_called;
CREATE SEQUENCE odd."se""q. 'x'
y" MAXVALUE 9223372036854775807;
CREATE :unlogged SEQUENCE odd.unlogged_sequence;
SELECT nextval('odd.downwards'), nextval('odd.downwards'), nextval('odd.small') \g /dev/null
SELECT setval('odd.set_not_called', 100, false), setval('odd."se""q. ''x''
y"', 9223372036854775807), nextval('odd.unlogged_sequence') \g /dev/null
GRANT USAGE ON SEQUENCE odd.small TO writer;
COMMENT ON SEQUENCE odd.small IS 'nearly full';

-- Tables: columns of every kind. ---------------------------------------------------------------------------------

CREATE TABLE odd.no_columns ();
INSERT INTO odd.no_columns SELECT FROM generate_series(1, 5);
CREATE TABLE odd.no_columns_no_rows ();
CREATE TABLE odd.all_dropped (a integer);
INSERT INTO odd.all_dropped VALUES (1), (2);
ALTER TABLE odd.all_dropped DROP COLUMN a;

CREATE TABLE odd.generated (
    id integer GENERATED ALWAYS AS IDENTITY (START WITH 100 INCREMENT BY 3) PRIMARY KEY,
    other integer GENERATED BY DEFAULT AS IDENTITY,
    old_style serial,
    gone text,
    base numeric(10, 2) NOT NULL DEFAULT 1.5,
    twice numeric GENERATED ALWAYS AS (base * 2) STORED,
    "upper ""case""" text GENERATED ALWAYS AS (upper('x' || base::text)) STORED
);
INSERT INTO odd.generated (gone, base) SELECT 'gone', i FROM generate_series(1, 20) AS i;
ALTER TABLE odd.generated DROP COLUMN gone;
ALTER TABLE odd.generated ADD COLUMN late text DEFAULT E'added \\ later\t';
CREATE TABLE odd.only_generated (n integer GENERATED ALWAYS AS (1 + 1) STORED);
INSERT INTO odd.only_generated SELECT FROM generate_series(1, 3);

CREATE TABLE odd."ta ""b"".le
with newline" ("co ""l"".umn
newline" text PRIMARY KEY, "select" integer, "UPPER" odd.colour, "ünïcödé ☃" text, "'; DROP TABLE x; --" text);
INSERT INTO odd."ta ""b"".le
with newline" VALUES (E'a\nb\tc\\d\re\bf', 1, 'it''s "green"', '☃', '\N'), ('', NULL, NULL, '\.', E'\\.'), (E'\\N', 0, 'orange', E'\v', ' ');
COMMENT ON TABLE odd."ta ""b"".le
with newline" IS E'a comment\nwith a newline -- and dashes';
COMMENT ON COLUMN odd."ta ""b"".le
with newline"."co ""l"".umn
newline" IS 'a column';
GRANT SELECT ("select"), UPDATE ("UPPER") ON odd."ta ""b"".le
with newline" TO reader;

CREATE TABLE "sch ""e"".ma
newline".t (a integer, b integer[]);
INSERT INTO "sch ""e"".ma
newline".t VALUES (1, '{1,NULL,3}'), (2, '[-1:1]={1,2,3}'), (3, '{}'), (4, '{{1,2},{3,4}}');
ALTER TABLE "sch ""e"".ma
newline".t OWNER TO "o'wner ""x"".y";

CREATE TABLE odd.typed OF odd.address (PRIMARY KEY (street), "House No" WITH OPTIONS DEFAULT 5);
INSERT INTO odd.typed VALUES ('Main St', 1, '12345'), ('', NULL, NULL);
CREATE UNLOGGED TABLE odd.unlogged (id integer PRIMARY KEY, t text);
INSERT INTO odd.unlogged SELECT i, 'unlogged ' || i FROM generate_series(1, 30) AS i;
CREATE TABLE odd.other_heap (id integer) USING heap_twin;
INSERT INTO odd.other_heap SELECT generate_series(1, 100);
CREATE TABLE odd.tuned (a text :compressed, b text, c integer NOT NULL)
    WITH (fillfactor = 50, autovacuum_enabled = false, toast.autovacuum_enabled = false, parallel_workers = 0);
ALTER TABLE odd.tuned ALTER COLUMN a SET STORAGE EXTERNAL, ALTER COLUMN b SET STORAGE MAIN;
ALTER TABLE odd.tuned ALTER COLUMN c SET STATISTICS 77, ALTER COLUMN c SET (n_distinct = -0.5);
INSERT INTO odd.tuned VALUES (repeat('toasted ', 5000), repeat('m', 3000), 1);

-- Large enough to be read in several ranges of pages, with holes, and rows that moved.
CREATE TABLE odd.large (id bigint PRIMARY KEY, at timestamptz NOT NULL, body text);
INSERT INTO odd.large SELECT i, '2026-01-01 00:00:00+00'::timestamptz + i * interval '1 second', md5(i::text) || repeat(chr(97 + i % 26), i % 100) FROM generate_series(1, 40000) AS i;
DELETE FROM odd.large WHERE id % 17 = 0;
UPDATE odd.large SET body = body || ' updated' WHERE id % 23 = 0;
CREATE TABLE odd.wide (id integer, body text, raw bytea);
ALTER TABLE odd.wide ALTER COLUMN body SET STORAGE EXTERNAL;
INSERT INTO odd.wide VALUES (1, repeat(E'five megabytes\n', 350000), NULL), (2, NULL, decode(repeat('00ff0a5c', 800000), 'hex')), (3, '', '');

-- Constraints. ---------------------------------------------------------------------------------------------------

CREATE TABLE odd.chicken (id integer PRIMARY KEY, egg integer);
CREATE TABLE odd.egg (id integer PRIMARY KEY, chicken integer REFERENCES odd.chicken DEFERRABLE INITIALLY DEFERRED);
INSERT INTO odd.egg VALUES (1, NULL);
INSERT INTO odd.chicken VALUES (1, 1), (2, 99);
UPDATE odd.egg SET chicken = 2;
ALTER TABLE odd.chicken ADD CONSTRAINT laid FOREIGN KEY (egg) REFERENCES odd.egg ON DELETE SET NULL ON UPDATE CASCADE NOT VALID;
ALTER TABLE odd.chicken ADD CONSTRAINT "small ""id""" CHECK (id < 2) NO INHERIT NOT VALID;
COMMENT ON CONSTRAINT laid ON odd.chicken IS 'not by all';
CREATE TABLE odd.tree (id integer PRIMARY KEY, parent integer REFERENCES odd.tree (id) ON DELETE CASCADE, path text UNIQUE :nulls_not_distinct);
INSERT INTO odd.tree SELECT i, nullif(i / 2, 0), i::text FROM generate_series(1, 50) AS i;
CREATE TABLE odd.booked (
    room integer, during tstzrange, note text,
    EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (note IS NOT NULL) DEFERRABLE,
    CONSTRAINT by_room UNIQUE (room, during) INCLUDE (note)
);
INSERT INTO odd.booked VALUES (1, '[2026-01-01,2026-01-02)', 'a'), (1, '[2026-01-02,2026-01-03)', 'b'), (2, 'empty', NULL), (3, '(,)', 'c');
CREATE TABLE odd.partial_match (a integer, b integer, PRIMARY KEY (a, b));
CREATE TABLE odd.partial_match_of (a integer, b integer, FOREIGN KEY (a, b) REFERENCES odd.partial_match MATCH FULL ON DELETE SET NULL);

-- Inheritance and partitions. ------------------------------------------------------------------------------------

CREATE TABLE odd.parent (a integer CHECK (a > 0), b text DEFAULT 'parent');
CREATE TABLE odd.mixin (m integer NOT NULL);
CREATE TABLE odd.child (c integer, b text DEFAULT 'child') INHERITS (odd.parent, odd.mixin);
-- With the columns of its parents in their order: pg_dump puts them so, whatever they were.
CREATE TABLE odd.grandchild (z text, b text DEFAULT 'grandchild', CONSTRAINT positive_m CHECK (m > 0)) INHERITS (odd.child);
INSERT INTO odd.parent VALUES (1, 'p');
INSERT INTO odd.child (a, b, m, c) VALUES (2, 'c', 3, 4);
INSERT INTO odd.grandchild (a, b, c, m, z) VALUES (5, 'g', 6, 7, 'z');

CREATE TABLE odd.events (id bigint NOT NULL, day date NOT NULL, kind text NOT NULL, body jsonb) PARTITION BY RANGE (day);
CREATE TABLE odd.events_old PARTITION OF odd.events FOR VALUES FROM (MINVALUE) TO ('2026-01-01') WITH (fillfactor = 90);
CREATE TABLE odd.events_2026 (body jsonb, dropped integer, kind text NOT NULL, day date NOT NULL, id bigint NOT NULL) PARTITION BY LIST (kind);
ALTER TABLE odd.events_2026 DROP COLUMN dropped;
CREATE TABLE odd.events_2026_sale (kind text NOT NULL, id bigint NOT NULL, body jsonb, day date NOT NULL) PARTITION BY HASH (id);
CREATE TABLE odd.events_2026_sale_0 PARTITION OF odd.events_2026_sale FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE odd.events_2026_sale_1 (day date NOT NULL, kind text NOT NULL, id bigint NOT NULL, body jsonb);
ALTER TABLE odd.events_2026_sale ATTACH PARTITION odd.events_2026_sale_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
ALTER TABLE odd.events_2026 ATTACH PARTITION odd.events_2026_sale FOR VALUES IN ('sale', 'refund');
CREATE TABLE odd.events_2026_rest PARTITION OF odd.events_2026 DEFAULT;
ALTER TABLE odd.events ATTACH PARTITION odd.events_2026 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
CREATE TABLE odd.events_default PARTITION OF odd.events DEFAULT;
ALTER TABLE odd.events ADD PRIMARY KEY (id, day, kind);
CREATE INDEX events_by_kind ON odd.events (kind, day DESC);
CREATE INDEX events_2026_rest_day ON odd.events_2026_rest (day);
INSERT INTO odd.events SELECT i, '2025-12-20'::date + i % 400, (ARRAY['sale', 'refund', 'view', ''])[1 + i % 4], jsonb_build_object('i', i) FROM generate_series(1, 2000) AS i;
CREATE TABLE odd.empty_partitioned (a integer) PARTITION BY LIST (a);
CREATE TABLE odd.by_expression (a integer, t text) PARTITION BY RANGE (lower(t), a);
CREATE TABLE odd.by_expression_1 PARTITION OF odd.by_expression FOR VALUES FROM ('a', MINVALUE) TO ('n', MAXVALUE);
INSERT INTO odd.by_expression VALUES (1, 'Alpha');
COMMENT ON TABLE odd.events IS 'partitioned';
CREATE TABLE odd.noted (id bigint, day date, kind text, egg integer REFERENCES odd.egg, FOREIGN KEY (id, day, kind) REFERENCES odd.events) PARTITION BY LIST (kind);
CREATE TABLE odd.noted_rest PARTITION OF odd.noted DEFAULT;
INSERT INTO odd.noted SELECT id, day, kind, 1 FROM odd.events WHERE id < 20;

-- Every built-in type, at its edges. -----------------------------------------------------------------------------

CREATE TABLE odd.types (
    n integer PRIMARY KEY,
    t_smallint smallint, t_bigint bigint, t_numeric numeric, t_scaled :scaled, t_real real, t_double float8, t_money money,
    t_char char(5), t_one "char", t_varchar varchar(20), t_text text, t_name name, t_bytea bytea,
    t_timestamp timestamp, t_timestamptz timestamptz, t_rounded timestamptz(3), t_date date, t_time time, t_timetz timetz,
    t_interval interval, t_years interval year to month, t_boolean boolean, t_uuid uuid,
    t_inet inet, t_cidr cidr, t_macaddr macaddr, t_macaddr8 macaddr8, t_bit bit(5), t_varbit bit varying(70),
    t_json json, t_jsonb jsonb, t_jsonpath jsonpath, t_tsvector tsvector, t_tsquery tsquery,
    t_point point, t_line line, t_lseg lseg, t_box box, t_path path, t_polygon polygon, t_circle circle,
    t_int4range int4range, t_numrange numrange, t_tsrange tsrange, t_tstzrange tstzrange, t_daterange daterange, t_int8multirange :int8multirange,
    t_oid oid, t_regclass regclass, t_regtype regtype, t_regproc regproc, t_regprocedure regprocedure, t_regoperator regoperator,
    t_regnamespace regnamespace, t_regrole regrole, t_regconfig regconfig, t_regdictionary regdictionary, t_regcollation :regcollation,
    t_xid xid, t_xid8 :xid8, t_cid cid, t_tid tid, t_lsn pg_lsn, t_snapshot :snapshot, t_oidvector oidvector, t_int2vector int2vector,
    t_refcursor refcursor, t_aclitem aclitem, t_colour odd.colour, t_person odd.person, t_even odd.even DEFAULT 12, t_words odd.words, t_floats odd.floats,
    t_many_floats odd.many_floats, t_own odd.own_int, t_owns odd.own_int[], t_people odd.person[], t_texts text[], t_hstore public.hstore, t_citext public.citext,
    t_row odd.parent
);
INSERT INTO odd.types (n) VALUES (0);
INSERT INTO odd.types (n, t_smallint, t_bigint, t_numeric, t_scaled, t_real, t_double, t_money)
VALUES
    (1, -32768, -9223372036854775808, 'NaN', 12300, 'NaN', 'NaN', '-92233720368547758.08'),
    (2, 32767, 9223372036854775807, :'infinity', -99900, 'Infinity', 'Infinity', '92233720368547758.07'),
    (3, 0, 0, :'minus_infinity', 0, '-Infinity', '-Infinity', '0'),
    (4, 1, 1, '1e-200', 49, '-0', '-0', '0.01'),
    (5, 1, 1, '1e+200', 50, '1.17549435e-38', '2.2250738585072014e-308', '-0.01'),
    (6, 1, 1, '0.1234567890123456789012345678901234567890', NULL, '3.4028235e38', '1.7976931348623157e308', NULL),
    (7, 1, 1, '-0', NULL, '0.1', 0.1::float8 + 0.2::float8, NULL),
    (8, 1, 1, '100.000', NULL, '1e-45', '5e-324', NULL);
INSERT INTO odd.types (n, t_char, t_one, t_varchar, t_text, t_name, t_bytea)
VALUES
    (10, '', '', '', '', '', ''),
    (11, 'a b  ', 'x', E'tab\tand\\', E'line\nreturn\r\\.\n\\N\b\f\v', 'name', '\x00'),
    (12, 'ünïcö', E'\\377', '☃☃', U&'\+01F600 \FEFF \0001', repeat('n', 63), '\xdeadbeef5c0a0d09'),
    (13, NULL, NULL, NULL, NULL, NULL, (SELECT decode(string_agg(lpad(to_hex(i), 2, '0'), '' ORDER BY i), 'hex') FROM generate_series(0, 255) AS i));
INSERT INTO odd.types (n, t_timestamp, t_timestamptz, t_rounded, t_date, t_time, t_timetz, t_interval, t_years)
VALUES
    (20, '-infinity', '-infinity', '-infinity', '-infinity', '00:00:00', '00:00:00+15:59', '-178000000 years', '-5 years -3 months'),
    (21, 'infinity', 'infinity', 'infinity', 'infinity', '24:00:00', '24:00:00-15:59', '178000000 years', '5 years 3 months'),
    (22, '4714-11-24 00:00:00 BC', '4714-11-24 00:00:00+00 BC', '0001-12-31 23:59:59.9994+00 BC', '4714-11-24 BC', '23:59:59.999999', '12:00:00.000001-00:30', '1 mon -1 day +00:00:00.000001', '0'),
    (23, '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '2026-11-22 05:06:07.0005+05:45', '5874897-12-31', NULL, NULL, '-00:00:00.000001', NULL),
    (24, '2026-03-29 02:30:00', '2026-10-25 02:30:00+01', NULL, '0001-01-01', NULL, NULL, '1 year -2 mons +3 days -04:05:06.789', NULL);
INSERT INTO odd.types (n, t_boolean, t_uuid, t_inet, t_cidr, t_macaddr, t_macaddr8, t_bit, t_varbit)
VALUES
    (30, false, '00000000-0000-0000-0000-000000000000', '0.0.0.0', '0.0.0.0/0', '00:00:00:00:00:00', '00:00:00:00:00:00:00:00', B'00000', B''),
    (31, true, 'ffffffff-ffff-ffff-ffff-ffffffffffff', '::ffff:1.2.3.4/96', '2001:db8::/32', 'ff:ff:ff:ff:ff:ff', 'ff:ff:ff:ff:ff:ff:ff:ff', B'11111', B'1010101010101010101010101010101010101010101010101010101010101010101010'),
    (32, NULL, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '192.168.1.7/24', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'01010', B'1');
INSERT INTO odd.types (n, t_json, t_jsonb, t_jsonpath, t_tsvector, t_tsquery)
VALUES
    (40, E'{ "a" : 1,  "a": 2,\n "b\\n": "\\\\" }', '{"a": [1, 1.50, 1e400, null, "\"\\\u00e9"], "": {}}', '$.a[*] ? (@ > 1)', $$'it''s':1A,3B 'back\\slash':2$$, $$'a' & !('b' | 'c':*A) <-> 'd'$$),
    (41, '[]', 'null', 'strict $', '', ''),
    (42, 'null', '"\ud83d\ude00"', NULL, NULL, NULL);
INSERT INTO odd.types (n, t_point, t_line, t_lseg, t_box, t_path, t_polygon, t_circle)
VALUES
    (50, '(NaN,-0)', '{1,-1,0}', '((0,0),(1e300,-1e-300))', '((1,1),(0,0))', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),Infinity>'),
    (51, '(0,0)', '{0,1,2}', '((0,0),(0,0))', '((0,0),(0,0))', '((0,0),(1,1))', '((0,0))', '<(1,2),0>');
INSERT INTO odd.types (n, t_int4range, t_numrange, t_tsrange, t_tstzrange, t_daterange, t_int8multirange)
VALUES
    (60, '[-2147483648,2147483647)', '(,1.50]', '[-infinity,infinity]', '["2026-01-01 00:00:00+00",)', 'empty', '{[1,2),[5,9)}'),
    (61, 'empty', 'empty', '(,)', 'empty', '[2026-01-01,)', '{}');
INSERT INTO odd.types (n, t_oid, t_regclass, t_regtype, t_regproc, t_regprocedure, t_regoperator, t_regnamespace, t_regrole, t_regconfig, t_regdictionary, t_regcollation)
VALUES
    (70, 4294967295, 'odd."ta ""b"".le
with newline"', 'odd.person[]', 'odd.tau', 'odd.add(text,text)', 'odd.~~~(point,point)', '"sch ""e"".ma
newline"', 'reader', 'odd.search', 'odd.dictionary', 'odd.plain'),
    (71, 0, '-', '-', '-', '-', '0', '-', '-', '-', '-', '-');
INSERT INTO odd.types (n, t_xid, t_xid8, t_cid, t_tid, t_lsn, t_snapshot, t_oidvector, t_int2vector, t_refcursor, t_aclitem)
VALUES
    (80, '4294967295', '18446744073709551615', '4294967295', '(4294967295,65535)', 'FFFFFFFF/FFFFFFFF', '10:20:10,14,15', '1 2 3', '-1 0 1', 'a cursor', 'reader=r*w/postgres'),
    (81, '0', '0', '0', '(0,0)', '0/0', '1:1:', '', '', '', 'writer=/postgres');
INSERT INTO odd.types (n, t_colour, t_person, t_even, t_words, t_floats, t_many_floats, t_own, t_owns, t_people, t_texts, t_hstore, t_citext, t_row)
VALUES
    (90, 'it''s "green"', ROW('a "quoted", name', ROW(E'st\\reet\n', 1, NULL)::odd.address, 5, '{a,"b c",NULL,"NULL"}'), 12, '{a,b}', '[1.5,infinity)', '{[1,2],(3,4)}', '-5', '{1;2;NULL}',
     ARRAY[ROW('x', NULL, 1, '{}')::odd.person, NULL], E'{"", NULL, "NULL", "a\\"b", "c\\\\d", "{}", "e,f", "\n"}', 'a=>1, "b c"=>NULL, ""=>"\"\\"', 'CaSe', ROW(1, 'p')),
    (91, NULL, ROW(NULL, NULL, 1, NULL), 14, '{}', 'empty', '{}', NULL, '{}', '{}', '{{a,b},{c,NULL}}', '', '', NULL);
-- Some packages of PostgreSQL are built without libxml.
SELECT NOT :'since_18'::boolean AS xml \gset
\if :xml
CREATE TABLE odd.xmls (x xml);
INSERT INTO odd.xmls VALUES ('<?xml version="1.0" standalone="yes"?><a b="c">é &amp; &#10;</a>'), ('just text'), ('');
\endif
\if :since_18
CREATE TABLE odd.virtual (a integer, b integer GENERATED ALWAYS AS (a * 2) VIRTUAL);
INSERT INTO odd.virtual VALUES (1), (2);
CREATE TABLE odd.newer (id int4range, during tstzrange, n integer, PRIMARY KEY (id, during WITHOUT OVERLAPS), CONSTRAINT small CHECK (n < 10) NOT ENFORCED);
CREATE TABLE odd.newer_of (id int4range, during tstzrange, note text, FOREIGN KEY (id, PERIOD during) REFERENCES odd.newer (id, PERIOD during));
INSERT INTO odd.newer VALUES ('[1,2)', '[2026-01-01,2026-02-01)', 99), ('[1,2)', '[2026-02-01,)', 1);
INSERT INTO odd.newer_of VALUES ('[1,2)', '[2026-01-15,2026-03-01)', NULL);
ALTER TABLE odd.newer_of ADD CONSTRAINT noted NOT NULL note NOT VALID;
\endif

-- Indexes and statistics. ----------------------------------------------------------------------------------------

CREATE INDEX large_by_day ON odd.large (((at AT TIME ZONE 'UTC')::date), lower(body) text_pattern_ops DESC NULLS LAST) INCLUDE (id) WHERE body <> '';
CREATE INDEX large_brin ON odd.large USING brin (at) WITH (pages_per_range = 16);
CREATE INDEX "large ""hash"".
index" ON odd.large USING hash (body);
CREATE INDEX large_trigrams ON odd.large USING gin (body public.gin_trgm_ops) WITH (fastupdate = off) WHERE id < 1000;
CREATE INDEX types_points ON odd.types USING spgist (t_point) WHERE n <> 50;
CREATE INDEX types_jsonb ON odd.types USING gin (t_jsonb jsonb_path_ops);
CREATE INDEX types_own_class ON odd.types (t_bigint odd.big_ops);
CREATE UNIQUE INDEX tuned_identity ON odd.tuned (c) WITH (fillfactor = 70);
ALTER TABLE odd.tuned REPLICA IDENTITY USING INDEX tuned_identity;
ALTER TABLE odd.mixin REPLICA IDENTITY FULL;
CREATE INDEX tree_clustered ON odd.tree (parent);
ALTER TABLE odd.tree CLUSTER ON tree_clustered;
ALTER INDEX odd.large_by_day ALTER COLUMN 1 SET STATISTICS 500;
COMMENT ON INDEX odd.large_brin IS 'a brin';
CREATE STATISTICS odd.stat_all ON kind, day FROM odd.events;
CREATE STATISTICS odd."st""at" (ndistinct, mcv) ON id, :length_of_body FROM odd.large;
\if :since_13
ALTER STATISTICS odd.stat_all SET STATISTICS 111;
\endif
COMMENT ON STATISTICS odd.stat_all IS 'statistics';

-- Views, materialized views, rules. ------------------------------------------------------------------------------

CREATE VIEW odd.view_large WITH (security_barrier) AS SELECT id, upper(body) AS "BODY" FROM odd.large WHERE id < 100;
CREATE VIEW odd.view_checked :as_invoker AS SELECT * FROM odd.tree WHERE id < 10 WITH LOCAL CHECK OPTION;
CREATE VIEW odd.view_of_view AS SELECT v.*, w.path FROM odd.view_large AS v JOIN odd.view_checked AS w USING (id);
CREATE RECURSIVE VIEW odd.counted (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counted WHERE n < 10;
CREATE VIEW odd.no_columns_view AS SELECT;
ALTER VIEW odd.view_checked ALTER COLUMN path SET DEFAULT 'from the view';
COMMENT ON VIEW odd.view_large IS 'a view';
-- Computed as any session of this database would: months begin in its time zone.
SET timezone = 'Asia/Kathmandu';
CREATE MATERIALIZED VIEW odd.zz_daily AS SELECT day, count(*) AS n FROM odd.events GROUP BY day;
CREATE MATERIALIZED VIEW odd.aa_monthly AS SELECT date_trunc('month', day) AS month, sum(n) AS n FROM odd.zz_daily GROUP BY 1;
CREATE MATERIALIZED VIEW odd.unfilled WITH (fillfactor = 60) AS SELECT * FROM odd.aa_monthly WITH NO DATA;
CREATE UNIQUE INDEX aa_monthly_by_month ON odd.aa_monthly (month);
CREATE VIEW odd.view_of_matview AS SELECT max(n) AS most FROM odd.aa_monthly;
CREATE MATERIALIZED VIEW odd.matview_of_view AS SELECT most FROM odd.view_of_matview;
RESET timezone;
COMMENT ON MATERIALIZED VIEW odd.zz_daily IS 'a materialized view';
CREATE TABLE odd.ruled (n integer, note text);
INSERT INTO odd.ruled VALUES (-1, 'before the rule'), (1, 'before the rule');
CREATE RULE "not negative" AS ON INSERT TO odd.ruled WHERE NEW.n < 0 DO INSTEAD NOTHING;
CREATE RULE noted AS ON UPDATE TO odd.view_large DO INSTEAD (UPDATE odd.ruled SET note = NEW."BODY" WHERE n = OLD.id; NOTIFY noted);
ALTER TABLE odd.ruled DISABLE RULE "not negative";
COMMENT ON RULE noted ON odd.view_large IS 'a rule';
-- A view that needs its primary key: pg_dump writes it in two parts.
CREATE VIEW odd.grouped AS SELECT id, path FROM odd.tree GROUP BY id;

-- Triggers. ------------------------------------------------------------------------------------------------------

CREATE FUNCTION odd.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no more rows'; END $$;
CREATE FUNCTION odd.change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.t := 'changed by a trigger'; RETURN NEW; END $$;
CREATE FUNCTION odd.watch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM count(*) FROM fresh; RETURN NULL; END $$;
CREATE FUNCTION odd.instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE odd.triggered (id integer PRIMARY KEY, t text);
INSERT INTO odd.triggered SELECT i, 'as it was' FROM generate_series(1, 10) AS i;
CREATE TRIGGER a_refuse BEFORE INSERT ON odd.triggered FOR EACH STATEMENT EXECUTE FUNCTION odd.refuse();
CREATE TRIGGER "b ""change""" BEFORE INSERT OR UPDATE OF t ON odd.triggered FOR EACH ROW WHEN (NEW.id > 3) EXECUTE FUNCTION odd.change('an ''argument''', '2');
CREATE TRIGGER c_watch AFTER INSERT ON odd.triggered REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION odd.watch();
CREATE CONSTRAINT TRIGGER d_later AFTER DELETE ON odd.triggered DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION odd.refuse();
CREATE TRIGGER e_instead INSTEAD OF INSERT ON odd.view_of_view FOR EACH ROW EXECUTE FUNCTION odd.instead();
CREATE TRIGGER f_partitioned :before INSERT ON odd.events FOR EACH ROW EXECUTE FUNCTION odd.instead();
ALTER TABLE odd.triggered ENABLE ALWAYS TRIGGER a_refuse;
ALTER TABLE odd.triggered ENABLE REPLICA TRIGGER "b ""change""";
ALTER TABLE odd.triggered DISABLE TRIGGER d_later;
COMMENT ON TRIGGER a_refuse ON odd.triggered IS 'refuses';

-- Row-level security. --------------------------------------------------------------------------------------------

CREATE TABLE odd.secured (id integer PRIMARY KEY, owner text NOT NULL);
INSERT INTO odd.secured SELECT i, CASE i % 2 WHEN 0 THEN 'reader' ELSE 'writer' END FROM generate_series(1, 50) AS i;
ALTER TABLE odd.secured ENABLE ROW LEVEL SECURITY;
ALTER TABLE odd.secured FORCE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON odd.secured TO reader, writer USING (owner = current_user) WITH CHECK (id > 0);
CREATE POLICY "only ""new""" ON odd.secured AS RESTRICTIVE FOR INSERT WITH CHECK (owner <> '');
COMMENT ON POLICY own_rows ON odd.secured IS 'own rows';

-- Foreign data: what lies elsewhere is not copied. -----------------------------------------------------------------

CREATE FOREIGN DATA WRAPPER nothing OPTIONS (debug 'true');
CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere', dbname 'elsewhere');
CREATE USER MAPPING FOR writer SERVER elsewhere OPTIONS (user 'else', password 'not a secret either');
CREATE FOREIGN TABLE odd.far_away (id integer OPTIONS (column_name 'nr') NOT NULL, body text) SERVER elsewhere OPTIONS (table_name 'far');
ALTER FOREIGN TABLE odd.far_away ADD CONSTRAINT near_enough CHECK (id > 0);
CREATE VIEW odd.view_far_away AS SELECT id FROM odd.far_away;
GRANT USAGE ON FOREIGN SERVER elsewhere TO writer;
COMMENT ON FOREIGN DATA WRAPPER nothing IS 'does nothing';
COMMENT ON SERVER elsewhere IS 'elsewhere';
COMMENT ON FOREIGN TABLE odd.far_away IS 'far';

-- Large objects. -------------------------------------------------------------------------------------------------

SELECT lo_from_bytea(424241, ''), lo_from_bytea(424242, decode(repeat('00ff5c27', 1000), 'hex')), lo_from_bytea(424243, decode(repeat('0123456789abcdef', 400000), 'hex')), lo_create(424244) \g /dev/null
SELECT lo_put(424244, 5000000, '\xff00') \g /dev/null
ALTER LARGE OBJECT 424242 OWNER TO "o'wner ""x"".y";
GRANT SELECT ON LARGE OBJECT 424243 TO reader;
GRANT UPDATE ON LARGE OBJECT 424243 TO boss WITH GRANT OPTION;
SET SESSION AUTHORIZATION boss;
GRANT UPDATE ON LARGE OBJECT 424243 TO PUBLIC;
RESET SESSION AUTHORIZATION;
REVOKE SELECT ON LARGE OBJECT 424243 FROM postgres;
REVOKE ALL ON LARGE OBJECT 424241 FROM postgres;
COMMENT ON LARGE OBJECT 424242 IS 'large';
COMMENT ON LARGE OBJECT 424244 IS E'it''s of\ntwo lines; \\ and -- more';

-- Replication. ---------------------------------------------------------------------------------------------------

\if :since_15
CREATE PUBLICATION some_tables FOR TABLE odd.tree (id, path) WHERE (id > 3), ONLY odd.parent WITH (publish = 'insert');
CREATE PUBLICATION a_schema FOR TABLES IN SCHEMA empty_schema WITH (publish_via_partition_root = true);
\else
CREATE PUBLICATION some_tables FOR TABLE odd.tree, ONLY odd.parent WITH (publish = 'insert');
\endif
CREATE PUBLICATION all_tables FOR ALL TABLES;
CREATE PUBLICATION "no ""tables""";
COMMENT ON PUBLICATION all_tables IS 'all';
-- Nor do they know what those of 16 say of a subscription.
\if :since_15
CREATE SUBSCRIPTION from_elsewhere CONNECTION 'host=/nowhere dbname=elsewhere' PUBLICATION theirs WITH (connect = false, slot_name = NONE, enabled = false, create_slot = false);
COMMENT ON SUBSCRIPTION from_elsewhere IS 'disabled';
\endif

-- Privileges that are still to come, and more of those that are. ----------------------------------------------------

GRANT SELECT ON ALL TABLES IN SCHEMA odd TO reader;
GRANT INSERT, TRUNCATE ON odd.tree TO writer WITH GRANT OPTION;
REVOKE ALL ON odd.tuned FROM PUBLIC, postgres;
ALTER DEFAULT PRIVILEGES FOR ROLE "o'wner ""x"".y" IN SCHEMA odd GRANT SELECT ON TABLES TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE "o'wner ""x"".y" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE "o'wner ""x"".y" GRANT USAGE ON SEQUENCES TO writer WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE "o'wner ""x"".y" GRANT USAGE ON TYPES TO reader;
ALTER DEFAULT PRIVILEGES FOR ROLE "o'wner ""x"".y" GRANT USAGE ON SCHEMAS TO reader;
\if :since_18
ALTER DEFAULT PRIVILEGES GRANT SELECT ON LARGE OBJECTS TO reader;
\endif
ALTER TABLE odd.tree OWNER TO "o'wner ""x"".y";
ALTER FUNCTION odd.tau() OWNER TO "o'wner ""x"".y";
\if :since_15
GRANT SET ON PARAMETER log_min_messages TO writer;
\endif

-- Event triggers come last: they would watch all of the above. -------------------------------------------------------

CREATE FUNCTION odd.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM tg_tag; END $$;
CREATE EVENT TRIGGER watch_ddl ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE') EXECUTE FUNCTION odd.on_ddl();
CREATE EVENT TRIGGER off_duty ON sql_drop EXECUTE FUNCTION odd.on_ddl();
ALTER EVENT TRIGGER off_duty DISABLE;
COMMENT ON EVENT TRIGGER watch_ddl IS 'watches';
