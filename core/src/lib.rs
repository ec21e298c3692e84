//! The pure centre of foreshock: what is decided, and how a drain proceeds.
//!
//! Nothing here does I/O, reads a clock, draws a random number or knows a wire format. Everything
//! is given, the time included, and everything is returned, the reasons included. That is what lets
//! the same code run in the service, in the demo, in the simulator and in a replay of history.

pub mod decision;
pub mod drain;
pub mod node;
pub mod record;
pub mod risk;
pub mod room;
pub mod time;
