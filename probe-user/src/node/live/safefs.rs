//! Reading files that somebody else controls.
