//! From the types of the running kernel to the offsets of the programs.

use std::io;
use std::path::Path;

use probe_common::Offsets;

use super::super::files;
use super::parts::{MissingField, ProbePart};
use super::reader::{Btf, StructMember, Type, TypeKind, WantedType};
use super::table::{self, FieldShape, ROWS};

/// A larger file is not read. The kernel's own has 4 to 10 MB.
const LARGEST: usize = 64 << 20;

/// Structs that are looked for beside those of the table, and the enum.
const OTHERS: [WantedType<'_>; 2] =
    [("socket_alloc", TypeKind::Struct), ("cgroup_subsys_id", TypeKind::Enum)];

/// Where the running kernel keeps the fields that programs read, as its BTF says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::live) struct KernelLayout {
    /// The offsets; `MISSING` where `missing` has a reason.
    pub(in crate::live) offsets: Offsets,
    /// What was not found, and what is off therefore.
    pub(in crate::live) missing: Vec<MissingField>,
    /// The BTF ids of the functions that were asked for, in their order.
    pub(in crate::live) functions: Vec<Option<u32>>,
}

impl KernelLayout {
    /// Why a part of the tool can't work; `None` when nothing it needs is missing.
    pub(in crate::live) fn refusal(&self, part: ProbePart) -> Option<String> {
        let mut reasons =
            self.missing.iter().filter(|m| m.parts.contains(&part)).map(|m| m.reason.as_str());
        let first = reasons.next()?;
        match reasons.count() {
            0 => Some(first.to_owned()),
            more => Some(format!("{first} (and {more} more are missing)")),
        }
    }

    fn nothing(reason: String, functions: usize) -> Self {
        let missing = vec![MissingField { reason, parts: ProbePart::ALL.to_vec() }];
        Self { offsets: Offsets::NONE, missing, functions: vec![None; functions] }
    }
}

/// Reads the BTF in a directory such as [`super::DIRECTORY`], and looks for the
/// ids of functions, such as `bpf_iter_task_file`. Never fails: what is not there
/// is said in [`KernelLayout::missing`].
pub(in crate::live) fn read(directory: &Path, functions: &[&str]) -> KernelLayout {
    let path = directory.join("vmlinux");
    let kernel = match contents(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reason = format!(
                "the kernel has no BTF: {} is not there (needs CONFIG_DEBUG_INFO_BTF)",
                path.display()
            );
            return KernelLayout::nothing(reason, functions.len());
        }
        Err(error) => {
            let reason = format!("the kernel's BTF can't be read: {}: {error}", path.display());
            return KernelLayout::nothing(reason, functions.len());
        }
    };
    let module = || contents(&directory.join("nf_conntrack")).ok();
    find(&kernel, module, functions).unwrap_or_else(|error| {
        KernelLayout::nothing(format!("{} {error}", path.display()), functions.len())
    })
}

pub(super) fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let read = files::read(rustix::fs::CWD, path, LARGEST)?;
    if read.cut {
        return Err(io::Error::other("it is larger than any kernel's"));
    }
    Ok(read.bytes)
}

/// Looks into the bytes. The module's are asked for only when the kernel itself
/// does not have the types of connection tracking.
pub(super) fn find(
    kernel: &[u8],
    module: impl FnOnce() -> Option<Vec<u8>>,
    functions: &[&str],
) -> Result<KernelLayout, super::reader::Error> {
    let mut wanted: Vec<WantedType<'_>> = OTHERS.to_vec();
    for row in ROWS {
        if !wanted.contains(&(row.of, TypeKind::Struct)) {
            wanted.push((row.of, TypeKind::Struct));
        }
    }
    let types = wanted.len();
    wanted.extend(functions.iter().map(|name| (*name, TypeKind::Func)));
    let btf = Btf::parse(kernel, None, &wanted)?;
    let functions = (types..wanted.len()).map(|number| btf.id(number)).collect();
    wanted.truncate(types);

    let is_there = |name| position(&wanted, name).and_then(|n| btf.id(n)).is_some();
    let bytes = if is_there("nf_conn") && is_there("nf_conntrack_tuple") { None } else { module() };
    // A damaged module's BTF is as good as none.
    let split = bytes.as_ref().and_then(|b| Btf::parse(b, Some(&btf), &wanted).ok());

    let mut search =
        OffsetSearch { btf: &btf, split: split.as_ref(), wanted: &wanted, missing: Vec::new() };
    let mut offsets = Offsets::NONE;
    for row in ROWS {
        match search.offset(row.of, row.path, row.shape) {
            Ok(offset) => *(row.slot)(&mut offsets) = offset,
            Err(reason) => search.miss(reason, row.parts),
        }
    }
    search.others(&mut offsets);
    Ok(KernelLayout { offsets, missing: search.missing, functions })
}

fn position(wanted: &[WantedType<'_>], name: &str) -> Option<usize> {
    wanted.iter().position(|(other, _)| *other == name)
}

/// The types that were found, and what was not.
struct OffsetSearch<'a> {
    btf: &'a Btf<'a>,
    split: Option<&'a Btf<'a>>,
    wanted: &'a [WantedType<'a>],
    missing: Vec<MissingField>,
}

impl<'a> OffsetSearch<'a> {
    /// A named type, and the file that it is to be followed in.
    fn named(&self, name: &str) -> Result<(&'a Btf<'a>, Type<'a>), String> {
        let files = [Some(self.btf), self.split].into_iter().flatten();
        let number = position(self.wanted, name);
        let mut found =
            files.filter_map(|btf| Some((btf, btf.get(number.and_then(|n| btf.id(n))?)?)));
        found.next().ok_or_else(|| match self.btf.unknown_kind {
            Some(kind) => format!(
                "the type `{name}` is not in the part of the kernel's BTF that could be read: \
                 it has a kind of type, {kind}, that this version of the tool does not know"
            ),
            None if name.starts_with("nf_conn") => format!(
                "the type `{name}` is in the BTF of neither the kernel nor a loaded module \
                 nf_conntrack (load it with `modprobe nf_conntrack`)"
            ),
            None => format!("the type `{name}` is not in the kernel's BTF"),
        })
    }

    /// A member, found under one of its names.
    fn field(&self, of: &str, path: &str) -> Result<(&'a Btf<'a>, StructMember<'a>), String> {
        let (btf, ty) = self.named(of)?;
        let mut paths = path.split('|');
        let found = paths.find_map(|path| btf.field(ty, path));
        let field = found.ok_or_else(|| {
            format!("the kernel's `{of}` has no `{}`", path.replace('|', "` or `"))
        })?;
        // Else the file contradicts itself.
        let size = if field.bits > 0 { 0 } else { btf.size(field.ty).unwrap_or(0) };
        let whole = u64::from(btf.size(ty).unwrap_or(0)) * 8;
        let end = field.bit.saturating_add(u64::from(field.bits.max(1)).max(u64::from(size) * 8));
        // An array without length, at the end of a struct, has no size.
        if end > whole && (size > 0 || field.bit > whole) {
            return Err(format!(
                "the kernel's BTF is damaged: `{of}.{path}` lies outside of `{of}`"
            ));
        }
        Ok((btf, field))
    }

    fn offset(&self, of: &str, path: &str, shape: FieldShape) -> Result<u32, String> {
        let (btf, field) = self.field(of, path)?;
        if field.bits > 0 || field.bit % 8 != 0 {
            return Err(format!("`{of}.{path}` is a bit field in this kernel"));
        }
        let size = btf.size(field.ty);
        let fits = match shape {
            FieldShape::Number(bytes) => size == Some(bytes) && field.ty.is_number(),
            FieldShape::Pointer => field.ty.is_pointer(),
            FieldShape::Bytes(bytes) => size == Some(bytes),
            FieldShape::Any => true,
        };
        if !fits {
            return Err(format!("`{of}.{path}` has another type in this kernel"));
        }
        u32::try_from(field.bit / 8).map_err(|_| format!("`{of}.{path}` is too far away"))
    }

    /// What is no plain offset of a field.
    fn others(&mut self, offsets: &mut Offsets) {
        let upid = self.named("upid").map(|(btf, ty)| btf.size(ty));
        match upid {
            Ok(Some(size)) => offsets.upid_size = size,
            Ok(None) => self.miss("`upid` is no struct in this kernel".into(), table::UPID_SIZE),
            Err(reason) => self.miss(reason, table::UPID_SIZE),
        }
        match self.socket_inode() {
            Ok(offset) => offsets.socket_inode = offset,
            Err(reason) => self.miss(reason, table::SOCKET_INODE),
        }
        match self.field("sock", "__sk_common.skc_ipv6only") {
            Ok((_, field)) if field.bits == 1 => {
                let bit = (field.bit % 8) as u32;
                offsets.sock_ipv6only = (field.bit / 8) as u32;
                // Bits are counted from the lowest address.
                offsets.sock_ipv6only_mask =
                    if cfg!(target_endian = "little") { 1 << bit } else { 0x80 >> bit };
            }
            Ok(_) => {
                let reason = "`sock.__sk_common.skc_ipv6only` is not one bit in this kernel";
                self.miss(reason.into(), table::V6ONLY);
            }
            Err(reason) => self.miss(reason, table::V6ONLY),
        }
        match self.css_set_memory() {
            Ok(offset) => offsets.css_set_memory = offset,
            Err(reason) => self.miss(reason, table::V1),
        }
    }

    fn socket_inode(&self) -> Result<u32, String> {
        let inode = self.offset("socket_alloc", "vfs_inode", FieldShape::Any)?;
        let socket = self.offset("socket_alloc", "socket", FieldShape::Any)?;
        inode.checked_sub(socket).ok_or_else(|| "`socket_alloc` has its inode first".to_owned())
    }

    fn css_set_memory(&self) -> Result<u32, String> {
        let (btf, ty) = self.named("cgroup_subsys_id")?;
        let index = btf
            .enumerator(ty, "memory_cgrp_id")
            .ok_or("the kernel has no memory controller for cgroups (CONFIG_MEMCG)")?;
        // As a path, so that the length of the array is checked.
        self.offset("css_set", &format!("subsys[{index}]"), FieldShape::Pointer)
    }

    /// Notes what is missing; what one missing type causes is said once.
    fn miss(&mut self, reason: String, parts: &[ProbePart]) {
        let at = self.missing.iter().position(|m| m.reason == reason);
        let known = match at {
            Some(at) => &mut self.missing[at],
            None => {
                self.missing.push(MissingField { reason, parts: Vec::new() });
                let last = self.missing.len() - 1;
                &mut self.missing[last]
            }
        };
        known.parts.extend(parts);
        known.parts.sort_unstable();
        known.parts.dedup();
    }
}
