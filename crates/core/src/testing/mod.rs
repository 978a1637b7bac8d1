//! Model servers, and scripts that several clients play against them. The tests of `session` and the fuzz targets use
//! them; the program does not have them.

pub mod bodies;
pub mod message;
pub mod model;
pub mod player;
pub mod script;
