//! Hand-made files, the running kernel's, and damaged ones.

mod builder;
mod fuzz;
mod kernel;
mod made;
