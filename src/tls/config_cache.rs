//! [`ConfigCache`]: configurations that connections with equal settings share, until a file changes that they are made from.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::files::FileStamp;
use crate::thread_pool::lock;

/// Configurations kept at most. With more distinct settings in use, the least recently used ones are made anew.
pub(super) const MAX_CONFIGS: usize = 32;

/// A file that a configuration was made from.
pub(super) type UsedFile = (PathBuf, FileStamp);

/// Configurations by their settings, the most recently used one last.
#[derive(Debug)]
pub(super) struct ConfigCache<K, C> {
    entries: Mutex<Vec<CachedConfig<K, C>>>,
}

#[derive(Debug)]
struct CachedConfig<K, C> {
    settings: K,
    config: Arc<C>,
    /// Once one of these files has changed, the entry is stale.
    files: Arc<[UsedFile]>,
}

impl<K, C> Default for ConfigCache<K, C> {
    fn default() -> Self {
        Self { entries: Mutex::default() }
    }
}

impl<K: Eq, C> ConfigCache<K, C> {
    /// Returns the configuration for `settings` if its files are unchanged. Looks at the files.
    pub(super) fn get(&self, settings: &K) -> Option<Arc<C>> {
        let (config, files) = {
            let mut entries = self.entries();
            let at = entries.iter().position(|entry| entry.settings == *settings)?;
            entries[at..].rotate_left(1);
            let entry = entries.last()?;
            (Arc::clone(&entry.config), Arc::clone(&entry.files))
        };
        // Without the lock: a file system may be slow.
        files.iter().all(|(path, stamp)| FileStamp::of(path) == *stamp).then_some(config)
    }

    /// Keeps `config`, made from `files`, in place of an older one with the same settings.
    pub(super) fn insert(&self, settings: K, config: Arc<C>, files: Vec<UsedFile>) {
        let mut entries = self.entries();
        entries.retain(|entry| entry.settings != settings);
        if entries.len() >= MAX_CONFIGS {
            entries.remove(0);
        }
        entries.push(CachedConfig { settings, config, files: files.into() });
    }

    /// Drops all configurations.
    #[cfg(test)]
    pub(super) fn clear(&self) {
        self.entries().clear();
    }

    /// The number of configurations.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries().len()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<CachedConfig<K, C>>> {
        lock(&self.entries)
    }
}
