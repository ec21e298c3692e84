//! The pure centre as tables: scenes in, what is done and said out. One binary, so that a change is judged
//! within seconds.

mod audit;
mod cases;
mod decide;
mod drain;
mod edges;
mod findings;
mod intent;
mod limits;
mod margins;
mod moved;
mod pools;
mod ramp;
mod room;
mod said;
mod small;
mod storms;
#[path = "../support/mod.rs"]
mod support;
mod surge;
mod volumes;
