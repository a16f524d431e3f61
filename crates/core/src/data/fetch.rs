//! Downloads that resume, are checked, and appear whole or not at all.

use super::{file_checksum, reason};
use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

/// Downloads `url` to `path`. An interrupted download goes on from `path` with `.part` behind it.
///
/// `progress` is told bytes done and in all.
///
/// # Errors
/// The network or the disk fails, the server refuses, or the checksum differs (the bad file is removed).
pub(super) fn fetch(
    url: &str,
    path: &Path,
    sha256: &str,
    bytes: u64,
    progress: &dyn Fn(u64, u64),
) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, reason(&e)))?;
    let part = path.with_added_extension("part");
    let have = std::fs::metadata(&part).map_or(0, |m| m.len());
    if have != bytes {
        download(
            url,
            &part,
            if have < bytes { have } else { 0 },
            bytes,
            progress,
        )?;
    }
    let found = file_checksum(&part)?;
    if found != sha256 {
        let _ = std::fs::remove_file(&part);
        return Err(Error::Failed(format!(
            "{url} gave a file whose SHA-256 is {found}, it should be {sha256}: the publisher may have changed it, or the download was tampered with; nothing was kept"
        )));
    }
    std::fs::rename(&part, path).map_err(|e| Error::file(path, reason(&e)))
}

fn download(
    url: &str,
    part: &Path,
    have: u64,
    bytes: u64,
    progress: &dyn Fn(u64, u64),
) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::Failed(format!(
            "{url} could not be downloaded: {e}. The same command goes on where it stopped"
        ))
    };
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .build(),
    );
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = request.call().map_err(|e| failed(&e))?;
    let resumed = have > 0 && response.status() == 206;
    let mut file = if resumed {
        OpenOptions::new().append(true).open(part)
    } else {
        File::create(part)
    }
    .map_err(|e| Error::file(part, reason(&e)))?;
    let mut done = if resumed { have } else { 0 };
    let mut body = response.into_body().into_reader();
    let mut piece = vec![0u8; 1 << 16];
    loop {
        let n = body.read(&mut piece).map_err(|e| failed(&e))?;
        if n == 0 {
            break;
        }
        file.write_all(&piece[..n])
            .map_err(|e| Error::file(part, reason(&e)))?;
        done += n as u64;
        progress(done, bytes);
        if done > bytes {
            return Err(failed(&format!(
                "more than the expected {bytes} bytes came"
            )));
        }
    }
    if done < bytes {
        return Err(failed(&format!("only {done} of {bytes} bytes came")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::checksum;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// A server that answers `answers` requests with `content` from the asked byte on, cut after `cut` bytes.
    fn serve(
        content: &'static [u8],
        cut: usize,
        answers: usize,
    ) -> (String, std::thread::JoinHandle<Vec<usize>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        let handle = std::thread::spawn(move || {
            let mut starts = Vec::new();
            for _ in 0..answers {
                let (stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let mut start = 0;
                for line in lines.by_ref() {
                    let line = line.unwrap().to_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        start = range.trim_end_matches('-').parse().unwrap();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                starts.push(start);
                let rest = &content[start..];
                let status = if start > 0 {
                    "206 Partial Content"
                } else {
                    "200 OK"
                };
                let mut stream = stream;
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    rest.len()
                )
                .unwrap();
                stream.write_all(&rest[..rest.len().min(cut)]).unwrap();
            }
            starts
        });
        (url, handle)
    }

    static CONTENT: &[u8] = b"0123456789abcdefghij";

    #[test]
    fn a_cut_download_goes_on_where_it_stopped() {
        let (url, server) = serve(CONTENT, 12, 2);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache").join("file");
        let sum = checksum(CONTENT);
        let e = fetch(&url, &path, &sum, 20, &|_, _| ()).unwrap_err();
        assert_eq!(e.exit_status(), 1);
        assert!(!path.exists());
        fetch(&url, &path, &sum, 20, &|_, _| ()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), CONTENT);
        assert_eq!(server.join().unwrap(), [0, 12]);
    }

    #[test]
    fn a_wrong_checksum_keeps_nothing() {
        let (url, server) = serve(CONTENT, 100, 1);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let e = fetch(&url, &path, &checksum(b"other"), 20, &|_, _| ()).unwrap_err();
        assert!(e.to_string().contains("nothing was kept"), "{e}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        server.join().unwrap();
    }

    #[test]
    fn no_network_is_told_clearly() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        drop(listener);
        let dir = tempfile::tempdir().unwrap();
        let e = fetch(&url, &dir.path().join("f"), "", 20, &|_, _| ()).unwrap_err();
        assert!(e.to_string().contains("could not be downloaded"), "{e}");
    }
}
