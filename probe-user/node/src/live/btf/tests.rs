//! Hand-made files, the running kernel's, and damaged ones.

pub(super) mod builder;
mod fuzz;
mod kernel;
mod made;
