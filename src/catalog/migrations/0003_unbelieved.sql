-- Records that lie in a vault and are not believed are not read again by each command, as long as they look the same and
-- are judged the same. Both tables only save work: with either empty everything is read once more.

-- Whom was believed, and by which program, when the records of a vault were last judged.
create table judged (
    vault text not null primary key,
    mark  text not null
) strict;

create table unbelieved (
    vault text not null,
    key   text not null,
    -- Sizes and times of the record and its signature.
    looks text not null,
    primary key (vault, key)
) strict;
