//! What is always true, of decisions and of drains, over cases drawn at random.

mod decision;
mod drain;
mod moved;
#[path = "../support/mod.rs"]
mod support;
