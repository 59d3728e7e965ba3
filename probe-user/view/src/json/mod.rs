//! The JSON documents. Their types are apart from the model's, so that the
//! model can change without the documents: these are part of the interface,
//! and change only with [`SCHEMA_VERSION`].

mod answer;
mod audit;
mod bind;
mod by_name;
mod certificate;
mod diff;
mod enums;
mod event;
mod fleet;
mod flows;
mod groups;
mod held;
mod history;
mod list;
mod owner;
mod provenance;
mod unix;
mod wait;

use std::io::{self, Write};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::json;

use whereis_port_model as model;

pub use answer::*;
pub use audit::*;
pub use bind::*;
pub use by_name::*;
pub use certificate::*;
pub use diff::*;
pub use enums::*;
pub use event::*;
pub use fleet::*;
pub use flows::*;
pub use groups::*;
pub use held::*;
pub use history::*;
pub use list::*;
pub use owner::*;
pub use provenance::*;
pub use unix::*;
pub use wait::*;

use super::sanitize::SafeJson;

/// The version of the documents. It goes up when a field goes away or changes
/// its meaning; a new field does not raise it.
pub const SCHEMA_VERSION: u32 = 1;

/// The version of the tool, as in `--version`.
const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `whereis-port --json TARGET…` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AnswersDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// The node.
    pub host: Host<'a>,
    /// One answer for each question, in their order.
    pub answers: Vec<Answer<'a>>,
    /// What was read, and what could not be.
    pub sources: Vec<Source<'a>>,
}

/// What `whereis-port doctor --json` prints.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DoctorDocument<'a> {
    /// The version of this document's structure.
    pub schema_version: u32,
    /// The version of the tool that wrote it.
    pub tool_version: &'a str,
    /// The node.
    pub host: Host<'a>,
    /// Which of the capabilities that matter are effective, by the kernel's
    /// names: `CAP_SYS_PTRACE`.
    pub capabilities: Vec<&'static str>,
    /// What was read, and what could not be.
    pub sources: Vec<Source<'a>>,
}

/// The document for some answers.
pub fn answers<'a>(
    answers: &'a [model::Answer],
    host: &'a model::Host,
    sources: &'a [model::SourceReport],
) -> AnswersDocument<'a> {
    AnswersDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        host: host.into(),
        answers: answers.iter().map(Into::into).collect(),
        sources: sources.iter().map(Into::into).collect(),
    }
}

/// The document for `doctor`.
pub fn doctor<'a>(host: &'a model::Host, sources: &'a [model::SourceReport]) -> DoctorDocument<'a> {
    DoctorDocument {
        schema_version: SCHEMA_VERSION,
        tool_version: TOOL_VERSION,
        host: host.into(),
        capabilities: host.capabilities.iter().map(|c| super::words::capability(*c)).collect(),
        sources: sources.iter().map(Into::into).collect(),
    }
}

/// Writes `document`, indented, with a newline at its end.
///
/// # Errors
/// Those of `out`.
pub fn write(document: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, SafeJson::pretty());
    document.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// The JSON schema (2020-12) of the documents, and of the lines of `trace`, `cluster` and
/// `list --ndjson`.
pub fn schema() -> String {
    // As written, not as read: a field that may be null is still always there.
    let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12().for_serialize());
    let documents = [
        generator.subschema_for::<AnswersDocument<'_>>(),
        generator.subschema_for::<ListDocument<'_>>(),
        generator.subschema_for::<DoctorDocument<'_>>(),
        generator.subschema_for::<BindsDocument<'_>>(),
        generator.subschema_for::<AuditDocument<'_>>(),
        generator.subschema_for::<DiffDocument<'_>>(),
        generator.subschema_for::<WaitDocument<'_>>(),
        generator.subschema_for::<UnixDocument<'_>>(),
        generator.subschema_for::<SocketsDocument<'_>>(),
        generator.subschema_for::<FreeDocument<'_>>(),
        generator.subschema_for::<HistoryDocument<'_>>(),
        generator.subschema_for::<StartLine<'_>>(),
        generator.subschema_for::<EventLine<'_>>(),
        generator.subschema_for::<LostLine>(),
        generator.subschema_for::<SummaryLine<'_>>(),
        generator.subschema_for::<NodeLine<'_>>(),
        generator.subschema_for::<ClusterLine<'_>>(),
        generator.subschema_for::<ListLine<'_>>(),
        generator.subschema_for::<ProcessLine<'_>>(),
        generator.subschema_for::<ContainerLine<'_>>(),
        generator.subschema_for::<PodLine<'_>>(),
        generator.subschema_for::<ListClusterLine<'_>>(),
        generator.subschema_for::<ListenerLine<'_>>(),
        generator.subschema_for::<ListEndLine<'_>>(),
    ];
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "whereis-port",
        "description": format!(
            "What whereis-port prints with --json: answers, a list, doctor's report, or what audit, diff, bind, wait, free and history say; with trace, cluster and list --ndjson each line is one object with a type. Schema version {SCHEMA_VERSION}."
        ),
        "oneOf": documents,
        "$defs": generator.definitions(),
    });
    format!("{schema:#}\n")
}

#[cfg(test)]
mod tests;
