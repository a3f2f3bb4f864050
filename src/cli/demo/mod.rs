//! `demo`: the whole story on one machine.

mod shop;
