use std::fs;

use super::super::docker::tests::web_ports;
use super::*;
use whereis_port_model::{PodRef, Port, Proto, Published};

const WEB: &str = "018c01615fcb0566d6f11a0db90b9a8d3fd049ebb67a1fb4e3976195df4f492e";
const PODWEB: &str = "5889109fe8a2f6273c9aa33da9d335fca0f47fe2f1c9c5322c2464c849d0f87d";

fn fixture(name: &str) -> Vec<u8> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/live/containers/fixtures").join(name);
    fs::read(path).unwrap()
}

/// A root directory with fixtures at their places.
fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, RootDirectory) {
    let dir = tempfile::tempdir().unwrap();
    for (place, name) in files {
        let path = dir.path().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, fixture(name)).unwrap();
    }
    let root = RootDirectory::at(dir.path());
    (dir, root)
}

/// What is found of a container that who runs the tests holds.
fn find(
    root: &RootDirectory,
    target: &ContainerRef,
    monitor: Option<&Monitor>,
    told: &StateDirs,
) -> Result<Option<Container>, (String, Unreadable)> {
    let holder = Who { uid: rustix::process::geteuid().as_raw(), userns: None };
    super::find(root, target, monitor, told, &holder)
}

fn target(runtime: Runtime, id: &str) -> ContainerRef {
    ContainerRef { runtime, id: id.to_owned(), pod: None }
}

fn monitor(line: &str) -> Monitor {
    Monitor { argv: line.split(' ').map(str::to_owned).collect(), cwd: None }
}

#[test]
fn docker_with_its_usual_data_directory() {
    let dir = format!("var/lib/docker/containers/{WEB}");
    let (_dir, root) = root(&[
        (&format!("{dir}/config.v2.json"), "docker-20.10/config.v2.json"),
        (&format!("{dir}/hostconfig.json"), "docker-20.10/hostconfig.json"),
    ]);
    let web =
        find(&root, &target(Runtime::Docker, WEB), None, &StateDirs::default()).unwrap().unwrap();
    assert_eq!(web.name.as_deref(), Some("web"));
    assert_eq!(web.image.as_deref(), Some("lab/busybox:1"));
    assert_eq!(web.ports, web_ports());
    assert_eq!(web.network_mode.as_deref(), Some("labnet"));
    assert_eq!(web.networks[0].addresses.len(), 2);
    assert_eq!(web.labels.len(), 2);
    assert_eq!(web.via.to_string(), format!("state file /{dir}/config.v2.json"));
}

#[test]
fn docker_with_a_data_directory_of_its_own() {
    let config = format!("tmp/wpc/lab/data/containers/{WEB}/config.v2.json");
    let config = (config.as_str(), "docker-20.10/config.v2.json");
    let find_with = |files: &[(&str, &str)], monitor: Option<Monitor>, data_roots: &[String]| {
        let told = StateDirs { data_roots: data_roots.to_vec(), ..StateDirs::default() };
        let (_dir, root) = root(files);
        find(&root, &target(Runtime::Unknown, WEB), monitor.as_ref(), &told).unwrap()
    };
    assert!(find_with(&[config], None, &[]).is_none());
    // dockerd's command line says where.
    let told = find_with(&[config], None, &["/tmp/wpc/lab/data".to_owned()]).unwrap();
    assert_eq!((told.name.as_deref(), told.runtime), (Some("web"), Runtime::Docker));
    // So does the bundle, which the shim runs in.
    let tasks = "tmp/wpc/lab/exec/containerd/daemon/io.containerd.runtime.v2.task/moby";
    let bundle = format!("{tasks}/{WEB}/config.json");
    let shim = Monitor {
        cwd: Some(format!("/{tasks}/{WEB}").into()),
        ..monitor("/usr/bin/containerd-shim-runc-v2 -namespace moby -id x -address /s")
    };
    let files = [config, (bundle.as_str(), "docker-20.10/bundle-config.json")];
    let found = find_with(&files, Some(shim), &[]).unwrap();
    assert_eq!(found.name.as_deref(), Some("web"));
}

#[test]
fn a_pods_container_of_containerd() {
    let id = "b".repeat(64);
    let hash = "8daa50c3a64c9ff60bb9eab7b44b56fd".to_owned();
    let place = format!("run/containerd/io.containerd.runtime.v2.task/k8s.io/{id}/config.json");
    let (_dir, root) = root(&[(&place, "hand-made/cri-container.json")]);
    let target = ContainerRef {
        pod: Some(PodRef { uid: hash.clone() }),
        ..target(Runtime::Containerd, &id)
    };
    let shim =
        monitor("/usr/local/bin/containerd-shim-runc-v2 -namespace k8s.io -id c -address /s");
    for monitor in [Some(&shim), None] {
        let found = find(&root, &target, monitor, &StateDirs::default()).unwrap().unwrap();
        assert_eq!(found.name.as_deref(), Some("kube-apiserver"));
        assert_eq!(found.image.as_deref(), Some("k8s.gcr.io/kube-apiserver:v1.20.2"));
        let pod = found.pod.unwrap();
        assert_eq!(pod.name.as_deref(), Some("kube-apiserver-cluster2-control-plane"));
        assert_eq!(pod.namespace.as_deref(), Some("kube-system"));
        // As the cgroup has it, whatever the annotation says.
        assert_eq!(pod.uid, Some(hash.clone()));
        assert_eq!(found.via.to_string(), format!("state file /{place}").replace("//", "/"));
    }
}

#[test]
fn a_pods_sandbox_is_the_pause_container() {
    let bundle: Bundle = serde_json::from_slice(&fixture("hand-made/cri-sandbox.json")).unwrap();
    let pause = bundle.container(&target(Runtime::Containerd, "x"), ToldBy::default());
    assert_eq!(pause.name.as_deref(), Some("pause"));
    assert_eq!(pause.image.as_deref(), Some("k8s.gcr.io/pause:3.2"));
    assert_eq!(pause.pod.unwrap().name.as_deref(), Some("nginx-app"));
}

#[test]
fn nerdctl_leaves_ports_and_networks_in_the_bundle() {
    let bundle: Bundle = serde_json::from_slice(&fixture("hand-made/nerdctl.json")).unwrap();
    let web = bundle.container(&target(Runtime::Containerd, "x"), ToldBy::default());
    assert_eq!((web.name.as_deref(), web.runtime), (Some("web"), Runtime::Nerdctl));
    assert_eq!(web.network_mode.as_deref(), Some("bridge"));
    assert_eq!(web.networks[0].name, "bridge");
    assert_eq!(
        web.ports,
        [Published {
            proto: Proto::Tcp,
            container_port: Port(80),
            host_port: Some(Port(8080)),
            host_ip: Some("0.0.0.0".parse().unwrap()),
        }]
    );
    assert_eq!(web.labels["com.docker.compose.project"], "shop");
    assert_eq!(web.labels.len(), 1);
}

#[test]
fn podman_by_conmon_and_its_storage() {
    let argv = fixture("podman-4.3/conmon-cmdline.txt");
    let argv = String::from_utf8(argv).unwrap().lines().map(str::to_owned).collect();
    let conmon = Monitor { argv, cwd: None };
    // The command line alone gives the name.
    let (_dir, empty) = root(&[]);
    let target = target(Runtime::Podman, PODWEB);
    let named = find(&empty, &target, Some(&conmon), &StateDirs::default()).unwrap().unwrap();
    assert_eq!(named.name.as_deref(), Some("podweb"));
    assert_eq!(named.via.to_string(), "conmon's command line");
    assert_eq!(find(&empty, &target, None, &StateDirs::default()), Ok(None));
    // And where the storage is, which knows the image.
    let store = "tmp/wpc/pod/root/vfs-containers";
    let (_dir, full) = root(&[
        (&format!("{store}/containers.json"), "podman-4.3/storage-containers.json"),
        (&format!("{store}/{PODWEB}/userdata/config.json"), "podman-4.3/bundle-config.json"),
    ]);
    let found = find(&full, &target, Some(&conmon), &StateDirs::default()).unwrap().unwrap();
    assert_eq!(found.name.as_deref(), Some("podweb"));
    assert_eq!(found.image.as_deref(), Some("localhost/lab/busybox:1"));
    assert_eq!(found.pod, None);
}

#[test]
fn a_conmon_of_another_container_does_not_give_its_name() {
    let conmon =
        monitor("/usr/bin/conmon -c other -n other -b /s/overlay-containers/other/userdata");
    let (_dir, root) = root(&[]);
    let found = find(&root, &target(Runtime::Podman, PODWEB), Some(&conmon), &StateDirs::default());
    assert_eq!(found, Ok(None));
}

#[test]
fn cri_o_by_its_annotations_or_its_storage() {
    let id = "b".repeat(64);
    let store = "run/containers/storage/overlay-containers";
    for (place, name) in [
        (format!("{store}/{id}/userdata/config.json"), "hand-made/crio-container.json"),
        (format!("{store}/containers.json"), "hand-made/crio-containers.json"),
    ] {
        let (_dir, root) = root(&[(&place, name)]);
        let found =
            find(&root, &target(Runtime::CriO, &id), None, &StateDirs::default()).unwrap().unwrap();
        assert_eq!(found.name.as_deref(), Some("web"), "{name}");
        assert_eq!(found.image.as_deref(), Some("quay.io/lab/web:1"), "{name}");
        let pod = found.pod.unwrap();
        assert_eq!(pod.namespace.as_deref(), Some("default"), "{name}");
        assert_eq!(pod.name.as_deref(), Some("shop-1"), "{name}");
        assert_eq!(pod.uid.as_deref(), Some("1e597579-417e-482f-bf65-5fe170c3aebd"), "{name}");
    }
}

#[test]
fn what_is_there_but_no_json_is_told() {
    let (dir, root) = root(&[]);
    let docker = dir.path().join("var/lib/docker/containers").join(WEB);
    fs::create_dir_all(&docker).unwrap();
    fs::write(docker.join("config.v2.json"), "{").unwrap();
    let (file, error) =
        find(&root, &target(Runtime::Docker, WEB), None, &StateDirs::default()).unwrap_err();
    assert!(file.ends_with("config.v2.json"), "{file}");
    assert!(matches!(error, Unreadable::Failed(_)), "{error}");
}

#[test]
fn a_machine_is_called_what_its_cgroup_is_called() {
    let (_dir, root) = root(&[]);
    let found =
        find(&root, &target(Runtime::Lxc, "web1"), None, &StateDirs::default()).unwrap().unwrap();
    assert_eq!((found.name.as_deref(), found.via.is_untold()), (Some("web1"), true));
}

#[test]
fn names_of_logs_are_taken_apart() {
    let uid = "0f7a2b1c-5d34-4f6e-8a90-1b2c3d4e5f60";
    let pod = pod_of_logs(&format!("default_web-abc_{uid}"), uid).unwrap();
    assert_eq!(pod, ("default".to_owned(), "web-abc".to_owned()));
    for other in [uid, &format!("_{uid}"), &format!("a_{uid}"), "a_b_c", &format!("a_b_c_{uid}")] {
        assert_eq!(pod_of_logs(other, uid), None, "{other}");
    }
    let log = |name: &str| container_of_log(name, WEB);
    assert_eq!(log(&format!("web-abc_default_nginx-{WEB}.log")).as_deref(), Some("nginx"));
    assert_eq!(log(&format!("web-abc_default_my-app-{WEB}.log")).as_deref(), Some("my-app"));
    assert_eq!(log(&format!("web-abc_default_nginx-{PODWEB}.log")), None);
    assert_eq!(log("x.log"), None);
}

#[test]
fn a_sandboxs_bundle_says_what_holds_for_the_pod() {
    let sandbox = "5".repeat(64);
    let bundle = |text: String| serde_json::from_str::<Bundle>(&text).unwrap();
    let with = |namespaces: &str, more: &str| {
        bundle(format!(
            r#"{{"annotations": {{"io.kubernetes.cri.container-type": "sandbox",
                "io.kubernetes.cri.sandbox-name": "p", "io.kubernetes.cri.sandbox-id": "{sandbox}"
                {more}}}, "linux": {{"namespaces": [{namespaces}]}}}}"#
        ))
    };
    let told = |bundle: &Bundle| {
        let container = bundle.container(&target(Runtime::Containerd, &sandbox), ToldBy::default());
        assert!(container.sandbox);
        container
    };
    let own = told(&with(r#"{"type":"pid"},{"type":"network","path":"/run/netns/x"}"#, ""));
    assert_eq!(own.pod.unwrap().host_network, Some(false));
    let host = told(&with(r#"{"type":"pid"}"#, ""));
    assert_eq!(host.network_mode.as_deref(), Some("host"));
    assert_eq!(host.pod.unwrap().host_network, Some(true));
    let more = r#", "io.kubernetes.cri-o.Labels": "{\"app\":\"a\",\"io.kubernetes.pod.uid\":\"u\"}",
        "io.kubernetes.cri-o.Annotations": "{\"kubernetes.io/config.source\":\"file\"}""#;
    let pod = told(&with("", more)).pod.unwrap();
    assert_eq!(pod.is_static, Some(true));
    assert_eq!(pod.labels, [("app".to_owned(), "a".to_owned())].into());
    // The sandbox of another container is looked for beside it, by an id only.
    let sandbox_of = |id: &str| {
        let text = format!(r#"{{"annotations": {{"io.kubernetes.cri.sandbox-id": "{id}"}}}}"#);
        bundle(text).sandbox_id(&target(Runtime::Containerd, WEB))
    };
    assert_eq!(sandbox_of(&sandbox), Some(sandbox.clone()));
    assert_eq!(sandbox_of(WEB), None);
    assert_eq!(sandbox_of("../../../etc"), None);
}
