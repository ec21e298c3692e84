//! What is to be done about every Node, and why.

pub mod audit;
pub mod memory;
pub mod plan;
pub mod policy;
pub mod verdict;
pub mod world;
