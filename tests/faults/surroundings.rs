//! What lies around the server: permissions that others give, file systems that cannot all that others can, and whoever
//! deletes files under a running server.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::layer::{Action, EIO, ENOSYS, EOPNOTSUPP, EPERM, Layer, Rule, calls};
use crate::common::server::{Home, Server, duragram};
use crate::common::wire::Wire;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Everything below a path, and itself.
fn all(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() {
        found.extend(fs::read_dir(path).unwrap().flat_map(|entry| all(&entry.unwrap().path())));
    }
    found
}

/// `duragram serve` by a shell, which sets something first.
fn serve_after(home: &Home, setting: &str) -> Server {
    let command = home.command(&home.data());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("{setting}; exec \"$0\" \"$@\"")).arg(command.get_program()).args(command.get_args());
    Server::try_start(home, shell).unwrap_or_else(|status| panic!("{status}"))
}

#[test]
fn data_directory_and_database_are_the_servers_alone_whatever_the_umask_and_a_sinks_file_is_as_the_umask_says() {
    for (umask, sink_mode) in [("000", 0o666), ("022", 0o644), ("077", 0o600)] {
        let home = Home::with_config("admin = \"127.0.0.1:0\"\n");
        let server = serve_after(&home, &format!("umask {umask}"));
        let wire = Wire::new(&server, 1);
        assert_eq!(wire.ask_ack(&wire.data(1, b"x")).floor, 1);
        home.wait_lines(1);
        for path in all(&home.data()) {
            let wanted = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(mode(&path), wanted, "umask {umask}: {}", path.display());
        }
        assert_eq!(mode(&home.out()), sink_mode, "umask {umask}");
        assert!(server.terminate().success());
    }
}

#[test]
fn a_directory_that_an_earlier_version_left_open_to_all_is_closed_to_others() {
    let home = Home::new();
    assert!(home.serve().terminate().success());
    for path in all(&home.data()) {
        let open = if path.is_dir() { 0o777 } else { 0o666 };
        fs::set_permissions(&path, Permissions::from_mode(open)).unwrap();
    }
    let server = home.serve();
    for path in all(&home.data()) {
        assert_eq!(mode(&path) & 0o007, 0, "{}", path.display());
    }
    assert_eq!(mode(&home.data().join("admin-token")), 0o600);
    assert!(server.log().contains("remove the file to get a new one"), "{}", server.log());
}

#[test]
fn what_kubernetes_does_for_an_fs_group_does_not_stop_a_start() {
    let home = Home::new();
    assert!(home.serve().terminate().success());
    let keys = home.path().join("keys");
    let made = duragram().args(["keys", "new", "--server"]).arg(&keys).output().unwrap();
    if !made.status.success() {
        fs::write(&keys, format!("fleet {}\n", "0123456789abcdef".repeat(4))).unwrap();
    }
    fs::set_permissions(&keys, Permissions::from_mode(0o440)).unwrap();
    let change = "chmod -R g+rwX \"$1\" && find \"$1\" -type d -exec chmod g+s {} +";
    assert!(Command::new("sh").args(["-c", change, "sh"]).arg(home.data()).status().unwrap().success());
    let server = home.serve_with(&["--keys", keys.to_str().unwrap(), "--allow-plain"]);
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"x")).floor, 1);
    assert_eq!(mode(&home.data().join("admin-token")), 0o600, "the server's own secret is for itself");
    assert!(server.terminate().success());
    // What others can read is refused, with what to do.
    fs::set_permissions(&keys, Permissions::from_mode(0o444)).unwrap();
    let mut command = home.command(&home.data());
    command.arg("--keys").arg(&keys);
    let status = Server::try_start(&home, command).err().unwrap();
    let log = fs::read_to_string(home.log_path()).unwrap();
    assert!(status.code() == Some(2) && log.contains("chmod 600") && log.contains("defaultMode"), "{status}: {log}");
}

#[test]
fn a_file_system_without_hard_links_serves() {
    for error in [EPERM, EOPNOTSUPP, ENOSYS] {
        let home = Home::new();
        let layer = Layer::over(&home.disk());
        layer.set(0, Rule::always(calls::LINK, "", Action::Fail(error)));
        let mut command = home.command(&home.data());
        layer.under(&mut command);
        let server = Server::try_start(&home, command).unwrap_or_else(|status| panic!("{error}: {status}"));
        assert!(layer.seen(0) > 0, "the layer was asked");
        let token = fs::read_to_string(home.data().join("admin-token")).unwrap();
        assert!(token.len() == 65 && mode(&home.data().join("admin-token")) == 0o600, "{error}");
        let wire = Wire::new(&server, 1);
        assert_eq!(wire.ask_ack(&wire.data(1, b"x")).floor, 1);
        assert!(server.terminate().success());
    }
}

#[test]
fn a_file_system_that_does_not_tell_its_size_is_not_full() {
    for action in [Action::Lie, Action::Fail(ENOSYS), Action::Fail(EIO)] {
        let home = Home::new();
        let layer = Layer::over(&home.disk());
        layer.set(0, Rule::always(calls::SPACE, "", action));
        let mut command = home.command(&home.data());
        layer.under(&mut command);
        let server = Server::try_start(&home, command).unwrap_or_else(|status| panic!("{action:?}: {status}"));
        assert!(layer.seen(0) > 0, "the layer was asked");
        let wire = Wire::new(&server, 1);
        for seq in 1..=3 {
            assert_eq!(wire.ask_ack(&wire.data(seq, b"x")).floor, seq, "{action:?}");
            std::thread::sleep(Duration::from_millis(300));
        }
        if action == Action::Lie {
            assert_eq!(server.log().matches("does not say how much space").count(), 1, "{}", server.log());
        }
        assert!(server.terminate().success());
    }
}

/// Waits for the server's end, which must come soon and name what is gone.
fn ends_with_4(server: &Server, what: &str, named: &str) {
    let noticed = Instant::now();
    let status = server.wait();
    let log = server.log();
    assert_eq!(status.code(), Some(4), "{what}: {log}");
    assert!(noticed.elapsed() < Duration::from_secs(5), "{what}: {:?}", noticed.elapsed());
    assert!(log.contains(named) && log.contains("must be left alone"), "{what}: {log}");
}

#[test]
fn files_that_are_deleted_under_an_idle_server_end_it_within_seconds() {
    let cases = [
        ("rm -rf data", "the data directory"),
        ("mv data elsewhere", "the data directory"),
        ("mv data elsewhere && cp -r elsewhere data", "is another one now"),
        ("rm -rf data/rocksdb", "the database"),
        ("rm data/rocksdb/*.log", ".log"),
        ("rm data/rocksdb/MANIFEST-*", "MANIFEST"),
        ("rm data/rocksdb/CURRENT", "CURRENT"),
        ("rm data/rocksdb/LOCK", "LOCK"),
        ("rm data/DURAGRAM", "DURAGRAM"),
        ("rm data/lock", "lock"),
        ("rm data/witness", "witness"),
        ("find data -type f -delete", "data"),
    ];
    for (command, named) in cases {
        let home = Home::new();
        let server = home.serve();
        let wire = Wire::new(&server, 1);
        assert_eq!(wire.ask_ack(&wire.data(1, b"x")).floor, 1);
        let done = Command::new("sh").args(["-c", command]).current_dir(home.disk()).status();
        assert!(done.unwrap().success(), "{command}");
        ends_with_4(&server, command, named);
    }
}

#[test]
fn a_deleted_table_file_ends_the_server_and_a_mount_over_its_directory_too() {
    let home = Home::new();
    // Its tables are written at the second start.
    let server = home.serve();
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"x")).floor, 1);
    assert!(server.terminate().success());
    let server = home.serve();
    let mut files = all(&home.data()).into_iter();
    let table = files.find(|path| path.extension().is_some_and(|it| it == "sst")).expect("a table file");
    fs::remove_file(&table).unwrap();
    ends_with_4(&server, "rm *.sst", ".sst");

    let home = Home::new();
    let server = home.serve();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(home.data()).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: nothing can be mounted here (that takes root)");
        return;
    }
    let ended = std::panic::catch_unwind(|| ends_with_4(&server, "mount", "something was mounted over it"));
    let unmounted = Command::new("umount").arg("-l").arg(home.data()).status();
    assert!(ended.is_ok() && unmounted.unwrap().success());
}

#[test]
fn a_lost_marker_is_damage_that_verify_tells_and_accept_loss_mends() {
    let home = Home::new();
    let server = home.serve();
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ask_ack(&wire.data(1, b"x")).floor, 1);
    assert!(server.terminate().success());
    fs::remove_file(home.data().join("DURAGRAM")).unwrap();
    fs::write(home.data().join("notes.txt"), "an operator's").unwrap();
    let status = Server::try_start(&home, home.command(&home.data())).err().expect("it is damaged");
    assert_eq!(status.code(), Some(3));
    let verify = duragram().args(["journal", "verify", "--data"]).arg(home.data()).output().unwrap();
    let told = String::from_utf8_lossy(&verify.stdout).into_owned();
    assert!(verify.status.code() == Some(3) && told.contains("the marker is gone"), "{told}");
    let server = home.serve_with(&["--accept-loss"]);
    let wire = Wire::new(&server, 1);
    assert_eq!(wire.ping().floor, 1, "nothing else was lost");
    assert!(server.terminate().success());
    assert!(home.serve().terminate().success());

    // Another program's, that happens to use RocksDB too.
    let foreign = home.path().join("foreign");
    fs::create_dir_all(foreign.join("rocksdb")).unwrap();
    fs::write(foreign.join("rocksdb/CURRENT"), "MANIFEST-000001\n").unwrap();
    fs::write(foreign.join("lock"), "").unwrap();
    let before: Vec<_> = all(&foreign);
    let status = Server::try_start(&home, home.command(&foreign)).err().expect("it is another program's");
    assert_eq!(status.code(), Some(1));
    assert_eq!(all(&foreign), before);
}
