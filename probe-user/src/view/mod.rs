//! Showing answers: text, JSON, tables. Everything untrusted is made safe here.
