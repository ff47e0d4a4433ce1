//! The binary `tollgate`.

mod admin;
mod commands;
mod ledger;
mod serve;
mod watch;

fn main() {}
