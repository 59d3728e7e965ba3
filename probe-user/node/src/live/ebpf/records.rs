//! What the iterators write, read from bytes. Pure.

use std::io::{Error, ErrorKind, Result};

use probe_common::{ABI, HeaderRecord, OtherRecord, SocketRecord, TaskRecord, record};
use zerocopy::FromBytes;

/// What one run of the probe's iterators gave.
#[derive(Debug, Default)]
pub(in crate::live) struct ProbeReading {
    /// The sockets that passed the filter, once for each descriptor.
    pub(in crate::live) sockets: Vec<SocketRecord>,
    /// Other bound sockets, likewise, where they were asked for.
    pub(in crate::live) others: Vec<OtherRecord>,
    /// The processes.
    pub(in crate::live) tasks: Vec<TaskRecord>,
    /// Whether the header was taken in.
    pub(in crate::live) begun: bool,
}

impl ProbeReading {
    /// Takes in as many whole records as `bytes` begins with, and gives the number
    /// of bytes they have. The kernel hands out records in whole.
    ///
    /// # Errors
    /// When the bytes are no records of this version.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize> {
        let mut rest = bytes;
        while let Some((head, _)) = rest.split_at_checked(4) {
            let kind = u16::from_ne_bytes([head[0], head[1]]);
            let size = usize::from(u16::from_ne_bytes([head[2], head[3]]));
            let Some((this, next)) = rest.split_at_checked(size) else { break };
            self.one(kind, this)?;
            rest = next;
        }
        Ok(bytes.len() - rest.len())
    }

    fn one(&mut self, kind: u16, bytes: &[u8]) -> Result<()> {
        if !self.begun {
            let header = (kind == record::HEADER).then(|| whole::<HeaderRecord>(bytes));
            return match header {
                Some(Ok(header)) if header.abi == ABI => {
                    self.begun = true;
                    Ok(())
                }
                Some(Ok(header)) => Err(bad(format!(
                    "the probe writes records of version {}, not {ABI}",
                    header.abi
                ))),
                _ => Err(bad("what was read does not begin like the probe's records".to_owned())),
            };
        }
        match kind {
            record::SOCKET => self.sockets.push(whole(bytes)?),
            record::OTHER => self.others.push(whole(bytes)?),
            record::TASK => self.tasks.push(whole(bytes)?),
            _ => return Err(bad(format!("the probe wrote a record of unknown kind {kind}"))),
        }
        Ok(())
    }

    /// Whether anything was read: every reading has a header.
    pub(super) fn is_whole(&self) -> bool {
        self.begun
    }
}

fn whole<T: FromBytes>(bytes: &[u8]) -> Result<T> {
    T::read_from_bytes(bytes)
        .map_err(|_| bad(format!("the probe wrote a record of {} bytes", bytes.len())))
}

fn bad(message: String) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;

    fn header(abi: u32) -> HeaderRecord {
        HeaderRecord { kind: record::HEADER, size: 8, abi }
    }

    fn task(tgid: u32) -> TaskRecord {
        TaskRecord {
            kind: record::TASK,
            size: 48,
            tgid,
            tid: tgid,
            netns: 7,
            mntns: 8,
            reserved: 0,
            start: 9,
            comm: [0; 16],
        }
    }

    #[test]
    fn records_are_read_in_whole_and_a_part_is_left() {
        let (one, two) = (task(1), task(2));
        let bytes = [header(ABI).as_bytes(), one.as_bytes(), &two.as_bytes()[..20]].concat();
        let mut reading = ProbeReading::default();
        assert_eq!(reading.take(&bytes).unwrap(), 8 + 48);
        assert_eq!(reading.tasks, [one]);
        assert!(reading.is_whole());
        assert_eq!(reading.take(two.as_bytes()).unwrap(), 48);
        assert_eq!(reading.tasks, [one, two]);
    }

    #[test]
    fn other_versions_and_garbage_are_refused() {
        let error = ProbeReading::default().take(header(ABI + 1).as_bytes()).unwrap_err();
        assert!(error.to_string().contains("version"), "{error}");
        assert!(ProbeReading::default().take(task(1).as_bytes()).is_err());
        assert!(ProbeReading::default().take(&[0xff; 70_000]).is_err());
        assert!(ProbeReading::default().take(&[0; 64]).is_err());
        let mut begun = ProbeReading::default();
        begun.take(header(ABI).as_bytes()).unwrap();
        let mut short = task(1).as_bytes()[..40].to_vec();
        short[2] = 40;
        assert!(begun.take(&short).is_err());
    }
}
