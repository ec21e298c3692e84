//! The only writer of Nodes and Pods.
