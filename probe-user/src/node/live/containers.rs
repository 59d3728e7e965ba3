//! Containers: from their runtimes' APIs, else from the runtimes' state files.
