use probe_common::Offsets;
use std::collections::HashMap;
struct B {
    d: Vec<u8>,
    s: usize,
    pos: Vec<usize>,
    names: HashMap<String, usize>,
}
fn u(d: &[u8], o: usize) -> u32 {
    u32::from_le_bytes([d[o], d[o + 1], d[o + 2], d[o + 3]])
}
impl B {
    fn new() -> Option<Self> {
        let d = std::fs::read("/sys/kernel/btf/vmlinux").ok()?;
        let h = u(&d, 4) as usize;
        let to = u(&d, 8) as usize + h;
        let tl = u(&d, 12) as usize;
        let s = u(&d, 16) as usize + h;
        let mut pos = vec![0];
        let mut names = HashMap::new();
        let mut p = to;
        while p < to + tl {
            let info = u(&d, p + 4);
            let k = (info >> 24) & 0x1f;
            let v = (info & 0xffff) as usize;
            pos.push(p);
            if k == 4 || k == 5 || k == 6 {
                let n = Self::nm(&d, s, u(&d, p));
                if !n.is_empty() {
                    names.entry(n).or_insert(p);
                }
            }
            p += 12
                + match k {
                    1 => 4,
                    3 => 12,
                    4 | 5 => 12 * v,
                    6 => 8 * v,
                    13 => 8 * v,
                    14 => 4,
                    15 => 12 * v,
                    17 => 4,
                    19 => 12 * v,
                    _ => 0,
                };
        }
        Some(B { d, s, pos, names })
    }
    fn nm(d: &[u8], s: usize, o: u32) -> String {
        let a = s + o as usize;
        let e = d[a..].iter().position(|b| *b == 0).unwrap();
        String::from_utf8_lossy(&d[a..a + e]).into()
    }
    fn strip(&self, mut t: u32) -> usize {
        loop {
            let p = self.pos[t as usize];
            let k = (u(&self.d, p + 4) >> 24) & 0x1f;
            if matches!(k, 8 | 9 | 10 | 11 | 18) { t = u(&self.d, p + 8) } else { return p }
        }
    }
    fn m(&self, p: usize, name: &str) -> Option<(u32, u32, u32)> {
        // bits,size,type
        let info = u(&self.d, p + 4);
        let k = (info >> 24) & 0x1f;
        if k != 4 && k != 5 {
            return None;
        }
        let v = (info & 0xffff) as usize;
        let kf = info >> 31 == 1;
        for i in 0..v {
            let q = p + 12 + 12 * i;
            let n = Self::nm(&self.d, self.s, u(&self.d, q));
            let ty = u(&self.d, q + 4);
            let o = u(&self.d, q + 8);
            let (b, sz) = if kf { (o & 0xffffff, o >> 24) } else { (o, 0) };
            if n == name {
                return Some((b, sz, ty));
            }
            if n.is_empty()
                && let Some((b2, s2, t2)) = self.m(self.strip(ty), name)
            {
                return Some((b + b2, s2, t2));
            }
        }
        None
    }
    fn f(&self, st: &str, path: &[&str]) -> Option<(u32, u32)> {
        let mut p = *self.names.get(st)?;
        let mut b = 0;
        let mut sz = 0;
        for n in path {
            let (x, s, t) = self.m(p, n)?;
            b += x;
            sz = s;
            p = self.strip(t);
        }
        Some((b, sz))
    }
    fn o(&self, st: &str, path: &[&str]) -> u32 {
        self.f(st, path).map_or(u32::MAX, |(b, _)| b / 8)
    }
    fn e(&self, en: &str, name: &str) -> Option<u32> {
        let p = *self.names.get(en)?;
        let v = (u(&self.d, p + 4) & 0xffff) as usize;
        (0..v).find_map(|i| {
            let q = p + 12 + 8 * i;
            (Self::nm(&self.d, self.s, u(&self.d, q)) == name).then(|| u(&self.d, q + 4))
        })
    }
}
pub(super) fn read() -> (Offsets, Vec<String>) {
    let Some(b) = B::new() else { return (Offsets::NONE, vec!["no BTF".into()]) };
    let c = |n: &str| b.o("sock", &["__sk_common", n]);
    let v6 = b.f("sock", &["__sk_common", "skc_ipv6only"]).unwrap();
    let o = Offsets {
        sock_family: c("skc_family"),
        sock_state: c("skc_state"),
        sock_num: c("skc_num"),
        sock_dport: c("skc_dport"),
        sock_rcv_saddr: c("skc_rcv_saddr"),
        sock_daddr: c("skc_daddr"),
        sock_v6_rcv_saddr: c("skc_v6_rcv_saddr"),
        sock_v6_daddr: c("skc_v6_daddr"),
        sock_net: b.o("sock", &["__sk_common", "skc_net", "net"]),
        sock_bound_dev_if: c("skc_bound_dev_if"),
        sock_ipv6only: v6.0 / 8,
        sock_ipv6only_mask: 1 << (v6.0 % 8),
        sock_type: b.o("sock", &["sk_type"]),
        sock_protocol: b.o("sock", &["sk_protocol"]),
        sock_uid: b.o("sock", &["sk_uid"]),
        sock_socket: b.o("sock", &["sk_socket"]),
        sock_cgroup: b.o("sock", &["sk_cgrp_data", "cgroup"]),
        socket_sk: b.o("socket", &["sk"]),
        socket_inode: b.o("socket_alloc", &["vfs_inode"]),
        file_inode: b.o("file", &["f_inode"]),
        inode_ino: b.o("inode", &["i_ino"]),
        net_inum: b.o("net", &["ns", "inum"]),
        net_cookie: b.o("net", &["net_cookie"]),
        cgroup_kn: b.o("cgroup", &["kn"]),
        kernfs_id: b.o("kernfs_node", &["id"]),
        kernfs_name: b.o("kernfs_node", &["name"]),
        task_tgid: b.o("task_struct", &["tgid"]),
        task_pid: b.o("task_struct", &["pid"]),
        task_start: b.o("task_struct", &["start_boottime"]),
        task_comm: b.o("task_struct", &["comm"]),
        task_group_leader: b.o("task_struct", &["group_leader"]),
        task_thread_pid: b.o("task_struct", &["thread_pid"]),
        task_nsproxy: b.o("task_struct", &["nsproxy"]),
        task_cgroups: b.o("task_struct", &["cgroups"]),
        inet_sport: b.o("inet_sock", &["inet_sport"]),
        pidns_inum: b.o("pid_namespace", &["ns", "inum"]),
        pid_level: b.o("pid", &["level"]),
        pid_numbers: b.o("pid", &["numbers"]),
        upid_size: 16,
        upid_nr: b.o("upid", &["nr"]),
        upid_ns: b.o("upid", &["ns"]),
        nsproxy_net: b.o("nsproxy", &["net_ns"]),
        nsproxy_mnt: b.o("nsproxy", &["mnt_ns"]),
        mnt_inum: b.o("mnt_namespace", &["ns", "inum"]),
        css_set_dfl: b.o("css_set", &["dfl_cgrp"]),
        css_set_memory: b
            .e("cgroup_subsys_id", "memory_cgrp_id")
            .map_or(u32::MAX, |i| b.o("css_set", &["subsys"]) + 8 * i),
        css_cgroup: b.o("cgroup_subsys_state", &["cgroup"]),
        ..Offsets::NONE
    };
    (o, vec![])
}
