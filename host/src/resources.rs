//! Measures the resources of this process: threads, open files, memory maps, and the memory of each library.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// The resources of a process.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// The number of threads.
    pub threads: usize,
    /// The number of open files.
    pub files: usize,
    /// The number of memory maps.
    pub maps: usize,
    /// The resident memory in bytes that is not the content of a file.
    pub anonymous_bytes: u64,
}

impl ProcessUsage {
    /// Adds the resources of another process.
    pub fn add(&mut self, other: Self) {
        self.threads += other.threads;
        self.files += other.files;
        self.maps += other.maps;
        self.anonymous_bytes += other.anonymous_bytes;
    }

    /// Measures this process. A number that the kernel does not report is 0.
    #[must_use]
    pub fn now() -> Self {
        Self {
            threads: count_entries("/proc/self/task"),
            files: count_entries("/proc/self/fd"),
            maps: count_memory_maps(),
            anonymous_bytes: read_lines("/proc/self/status")
                .find_map(|line| parse_kib(&line, "RssAnon:"))
                .unwrap_or_default(),
        }
    }
}

/// Returns the number of memory maps of this process.
#[must_use]
pub fn count_memory_maps() -> usize {
    read_lines("/proc/self/maps").count()
}

/// Returns the largest number of memory maps that a process may have (`vm.max_map_count`), or `None` if the limit
/// cannot be read.
#[must_use]
pub fn max_memory_maps() -> Option<usize> {
    let limit = fs::read_to_string("/proc/sys/vm/max_map_count").ok()?;
    limit.trim().parse().ok()
}

/// Returns the number of threads of this process with this name.
#[must_use]
pub fn count_threads_named(name: &str) -> usize {
    // A listing of the threads may end too early when a thread exits during the listing. The larger of two counts is
    // then the better one.
    (0..2)
        .map(|_| count_in_one_listing(name))
        .max()
        .unwrap_or_default()
}

/// Lists the threads of this process once, and returns how many have this name.
fn count_in_one_listing(name: &str) -> usize {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten();
    let names =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|other| other.trim_end() == name).count()
}

/// The memory of one mapped library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// The private copies of the file's pages in bytes. The kernel copies a page when the process writes to the page,
    /// as the dynamic linker does to relocate addresses.
    pub anonymous_bytes: u64,
    /// The number of memory maps of the file.
    pub maps: usize,
}

impl Footprint {
    /// Adds the memory of another library, or of the same library in another process.
    pub fn add(&mut self, other: Self) {
        self.anonymous_bytes += other.anonymous_bytes;
        self.maps += other.maps;
    }
}

/// Returns the memory of each of these private copies of libraries. Slow after many loads, because the kernel then
/// reports many memory maps.
#[must_use]
pub fn footprints(copies: &HashSet<PathBuf>) -> HashMap<PathBuf, Footprint> {
    parse_smaps(read_lines("/proc/self/smaps"), copies)
}

/// Adds up the memory maps of each file in `copies`, from the lines of `/proc/PID/smaps` (proc_pid_smaps(5)).
fn parse_smaps(
    smaps: impl Iterator<Item = String>,
    copies: &HashSet<PathBuf>,
) -> HashMap<PathBuf, Footprint> {
    let mut footprints: HashMap<PathBuf, Footprint> = HashMap::new();
    let mut current = None;
    for line in smaps {
        // The lines about a map follow the line that begins the map.
        if let Some(path) = map_path(&line) {
            // The kernel adds this suffix if the file was removed after it was mapped.
            let path = PathBuf::from(path.trim_end_matches(" (deleted)"));
            current = copies.contains(&path).then_some(path);
            if let Some(path) = &current {
                footprints.entry(path.clone()).or_default().maps += 1;
            }
        } else if let (Some(path), Some(bytes)) = (&current, parse_kib(&line, "Anonymous:"))
            && let Some(footprint) = footprints.get_mut(path)
        {
            footprint.anonymous_bytes += bytes;
        }
    }
    footprints
}

/// Returns the path in a line that begins a memory map: range, permissions, offset, device, inode, path. The path of a
/// map without a file is empty. Returns `None` for other lines.
fn map_path(line: &str) -> Option<&str> {
    let (range, rest) = line.split_once(' ')?;
    range.split_once('-')?;
    Some(rest.splitn(5, ' ').nth(4).unwrap_or_default().trim_start())
}

/// Returns the number of bytes in a line such as `Anonymous: 8 kB`, or `None` if the line does not begin with `key`.
fn parse_kib(line: &str, key: &str) -> Option<u64> {
    let number = line.strip_prefix(key)?.trim().strip_suffix(" kB")?;
    number.parse::<u64>().ok().map(|kib| kib << 10)
}

/// Returns the lines of a file. A file that cannot be read has no lines.
///
/// The lines are read one by one, because the files about memory maps are large after some hundred loads, and a
/// measurement of memory should not itself use much memory.
fn read_lines(path: &str) -> impl Iterator<Item = String> {
    let file = File::open(path).into_iter();
    file.flat_map(|file| BufReader::new(file).lines().map_while(Result::ok))
}

/// Returns the number of entries of a folder, or 0 if the folder cannot be read.
fn count_entries(folder: &str) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_librarys_areas_are_its_own() {
        let smaps = "\
7f00-7f10 r-xp 00000000 08:01 42                         /s/shop.g1.abc.so
Rss:                 100 kB
Anonymous:             0 kB
7f10-7f20 rw-p 00010000 08:01 42                         /s/shop.g1.abc.so
Anonymous:             8 kB
7f20-7f30 rw-p 00000000 00:00 0 
Anonymous:             4 kB
7f40-7f50 rw-p 00000000 00:00 0 
Anonymous:            64 kB
7f50-7f60 r-xp 00000000 08:01 43                         /usr/lib/libc.so.6
Anonymous:            16 kB
7f60-7f70 r-xp 00000000 08:01 44                         /s/shop.g2.abc.so (deleted)
Anonymous:            12 kB
";
        let copies = ["/s/shop.g1.abc.so", "/s/shop.g2.abc.so"].map(PathBuf::from);
        let footprints = parse_smaps(smaps.lines().map(str::to_owned), &copies.into());
        let of = |path: &str| footprints[Path::new(path)];
        let footprint = |kib: u64, maps| Footprint {
            anonymous_bytes: kib << 10,
            maps,
        };
        assert_eq!(of("/s/shop.g1.abc.so"), footprint(8, 2));
        assert_eq!(of("/s/shop.g2.abc.so"), footprint(12, 1));
        assert_eq!(footprints.len(), 2);
    }

    #[test]
    fn the_process_has_threads_files_and_memory() {
        let ProcessUsage {
            threads,
            files,
            maps,
            anonymous_bytes,
        } = ProcessUsage::now();
        assert!(threads >= 1 && files >= 3 && maps > 10 && anonymous_bytes > 4096);
        let name = "a-thread-here";
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let thread = thread.spawn(move || {
            ready.send(()).unwrap();
            let _ = stopped.recv();
        });
        is_ready.recv().unwrap();
        assert_eq!(count_threads_named(name), 1);
        drop(stop);
        thread.unwrap().join().unwrap();
    }
}
