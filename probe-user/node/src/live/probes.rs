//! What `doctor` says of the probe: each part is tried, and nothing is left.

use std::time::{Duration, Instant};

use super::ebpf::{self, LoadError, ProbeMode};
use super::watch;
use crate::WatchRequest;
use whereis_port_model::{EventKind, Impact, SourceReport};

/// Tries the iterators and the programs.
pub fn probe_reports() -> Vec<SourceReport> {
    let mut reports = vec![iterator()];
    reports.extend(details());
    reports.extend(events());
    reports
}

fn report(name: &str, since: Instant, result: Result<String, LoadError>) -> SourceReport {
    let (ok, detail, reason, remedy) = match result {
        Ok(detail) => (true, detail, None, None),
        Err(refused) => (false, String::new(), Some(refused.reason), refused.remedy),
    };
    let ms = since.elapsed().as_secs_f64() * 1000.0;
    SourceReport {
        name: name.to_owned(),
        ok,
        reason,
        remedy,
        command: None,
        ms,
        detail,
        namespaces: None,
    }
}

/// Whether questions are answered from a pin, and whether one could be made.
fn iterator() -> SourceReport {
    let since = Instant::now();
    let result = match ProbeMode::find() {
        ProbeMode::Pinned => Ok(format!("pinned in {}", ebpf::where_pinned().unwrap_or_default())),
        ProbeMode::Absent(Some(refused)) => Err(refused),
        ProbeMode::Kept(_) => Ok("loaded".to_owned()),
        ProbeMode::Absent(None) => ebpf::try_loading().map(|()| {
            "not pinned, so /proc is walked; `whereis-port pin` makes questions faster".to_owned()
        }),
    };
    report("eBPF iterator", since, result)
}

/// Fields that this kernel does not have: what they cost.
fn details() -> Vec<SourceReport> {
    let since = Instant::now();
    let missing = ebpf::missing_details();
    missing
        .into_iter()
        .map(|why| report("kernel types (BTF)", since, Err(LoadError::new(why))))
        .collect()
}

/// Whether events can be had as they happen.
fn events() -> Vec<SourceReport> {
    let since = Instant::now();
    let wanted = WatchRequest {
        kinds: EventKind::ALL.to_vec(),
        ports: None,
        drops: Vec::new(),
        interval: Duration::from_secs(1),
        ebpf: true,
        buffer: None,
    };
    let watch = match watch::watch(&wanted) {
        Ok(watch) => watch,
        Err(error) => {
            return vec![report("events", since, Err(LoadError::new(error.to_string())))];
        }
    };
    let mut reports = watch.sources();
    let ms = since.elapsed().as_secs_f64() * 1000.0;
    for report in &mut reports {
        report.ms = ms;
    }
    for gap in watch.gaps() {
        let is_small = gap.impact != Impact::Port;
        let told =
            is_small || reports.iter().any(|report| report.reason.as_ref() == Some(&gap.reason));
        if !told {
            let refused = LoadError { reason: gap.reason, remedy: gap.remedy };
            reports.push(report(&gap.source.to_string(), since, Err(refused)));
        }
    }
    reports
}
