//! [`Devices`]: the schedule's records of Luup devices.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::retry_policy::backoff;
use super::{DeviceKey, SubscriptionId};

/// First pause after a request without an answer in time, doubled for each further one.
const MIN_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause: the longest time before a device that works again is tried. An action that works but answers too late
/// is invoked at each attempt, and Luup does nothing else meanwhile, so the pause is not short.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Devices that are remembered without a subscription: as many as a box has plugins with connections that come and go.
const MAX_UNUSED: usize = 64;

/// What is known of how fast a device answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeviceClass {
    /// Its last request was answered in time.
    Prompt,
    /// It has had no request.
    Unknown,
    /// Its last request was not answered in time, or the present one takes long.
    Slow,
}

/// One device.
#[derive(Debug, Default)]
pub(super) struct Device {
    /// Number of subscriptions that name it.
    subscriptions: usize,
    /// True while one of them is in the queue of senders or has a request out, and during a pause.
    pub busy: bool,
    /// Due subscriptions that wait for the device, in order.
    pub waiting: VecDeque<SubscriptionId>,
    /// True if the request that is out takes long.
    hangs: bool,
    /// Requests in a row without an answer in time. `None` before the first outcome.
    timeouts: Option<u32>,
    /// No request before this instant. `None` after the pause has ended.
    pub paused_until: Option<Instant>,
}

impl Device {
    /// What its requests so far say of the next one.
    pub(super) fn class(&self) -> DeviceClass {
        match self.timeouts {
            _ if self.hangs => DeviceClass::Slow,
            None => DeviceClass::Unknown,
            Some(0) => DeviceClass::Prompt,
            Some(_) => DeviceClass::Slow,
        }
    }

    /// The request that is out takes long.
    pub(super) fn handle_slow(&mut self) {
        self.hangs = true;
    }

    /// A request did not reach the device, so its record stays.
    pub(super) fn handle_not_reached(&mut self) {
        self.hangs = false;
    }

    /// A request got no answer in time: pauses the device, longer each time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let before = self.timeouts.unwrap_or(0);
        self.paused_until = Some(now + backoff(MIN_PAUSE, MAX_PAUSE, before));
        (self.hangs, self.timeouts) = (false, Some(before + 1));
    }

    /// A request got an answer after `took`. The pause is as long, so that the device takes half of Luup's time at most:
    /// Luup runs one action at a time.
    pub(super) fn handle_answer(&mut self, took: Duration, now: Instant) {
        (self.hangs, self.timeouts) = (false, Some(0));
        self.paused_until = (!took.is_zero()).then(|| now + took.min(MAX_PAUSE));
    }

    /// Ends its pause. Returns the subscription that is next.
    pub(super) fn end_pause(&mut self) -> Option<SubscriptionId> {
        self.paused_until = None;
        self.next_waiting()
    }

    /// One of its subscriptions is done. Returns the next one, which keeps the device busy.
    pub(super) fn next_waiting(&mut self) -> Option<SubscriptionId> {
        let next = self.waiting.pop_front();
        self.busy = next.is_some();
        next
    }
}

/// All devices that subscriptions name, and the last [`MAX_UNUSED`] that have had a request and are named no more: the
/// next connection for one of these finds what is known of it.
#[derive(Debug, Default)]
pub(super) struct Devices {
    known: HashMap<DeviceKey, Device>,
    /// Those that no subscription names, from the oldest.
    unused: VecDeque<DeviceKey>,
}

impl Devices {
    /// A subscription more names the device.
    pub(super) fn open(&mut self, name: &DeviceKey) {
        let device = self.known.entry(name.clone()).or_default();
        device.subscriptions += 1;
        if device.subscriptions == 1 {
            self.unused.retain(|unused| unused != name);
        }
    }

    /// A subscription less names the device.
    pub(super) fn close(&mut self, name: &DeviceKey) {
        let Some(device) = self.known.get_mut(name) else { return };
        device.subscriptions -= 1;
        if device.subscriptions > 0 {
            return;
        }
        if device.class() == DeviceClass::Unknown {
            self.known.remove(name);
            return;
        }
        self.unused.push_back(name.clone());
        if self.unused.len() > MAX_UNUSED {
            // Other machines may name any number of devices. What is known of loopback's outlives that.
            let oldest = self.unused.iter().position(|unused| !unused.client.is_loopback()).unwrap_or(0);
            if let Some(oldest) = self.unused.remove(oldest) {
                self.known.remove(&oldest);
            }
        }
    }

    /// The device that a subscription names.
    pub(super) fn get(&self, name: &DeviceKey) -> Option<&Device> {
        self.known.get(name)
    }

    /// See [`Devices::get`].
    pub(super) fn get_mut(&mut self, name: &DeviceKey) -> Option<&mut Device> {
        self.known.get_mut(name)
    }

    /// Every device.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Device> {
        self.known.values()
    }

    /// Every device.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Device> {
        self.known.values_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientKey;

    fn loopback(number: usize) -> DeviceKey {
        DeviceKey::new(ClientKey::Loopback, &number.to_string())
    }

    #[test]
    fn devices_without_a_subscription_are_remembered_up_to_a_bound() {
        let now = Instant::now();
        let mut devices = Devices::default();
        for number in 0..1000 {
            let name = loopback(number);
            devices.open(&name);
            if number % 2 == 0 {
                devices.get_mut(&name).unwrap().handle_answer(Duration::ZERO, now);
            }
            devices.close(&name);
        }
        assert_eq!(devices.iter().count(), MAX_UNUSED);
        assert!(devices.get(&loopback(999)).is_none(), "nothing is known of it");
        let name = loopback(998);
        devices.open(&name);
        assert_eq!(devices.get(&name).map(Device::class), Some(DeviceClass::Prompt));
        assert_eq!(devices.unused.len(), MAX_UNUSED - 1);
        devices.close(&name);
        assert_eq!(devices.unused.len(), MAX_UNUSED);
    }

    #[test]
    fn devices_of_other_machines_are_forgotten_first() {
        let now = Instant::now();
        let mut devices = Devices::default();
        let mut use_once = |name: DeviceKey| {
            devices.open(&name);
            devices.get_mut(&name).unwrap().handle_answer(Duration::ZERO, now);
            devices.close(&name);
        };
        use_once(loopback(1));
        (0..1000).for_each(|number| use_once(DeviceKey::new(ClientKey::V6(1), &number.to_string())));
        use_once(loopback(2));
        assert_eq!([1, 2].map(|number| devices.get(&loopback(number)).is_some()), [true, true]);
        assert!(devices.get(&DeviceKey::new(ClientKey::V6(1), "999")).is_some(), "the oldest one goes");
        assert_eq!(devices.iter().count(), MAX_UNUSED);
    }

    #[test]
    fn a_device_is_slow_while_its_request_hangs_and_until_one_is_answered() {
        let now = Instant::now();
        let mut device = Device::default();
        assert_eq!(device.class(), DeviceClass::Unknown);
        device.handle_slow();
        assert_eq!(device.class(), DeviceClass::Slow);
        device.handle_not_reached();
        assert_eq!(device.class(), DeviceClass::Unknown);
        device.handle_answer(Duration::from_secs(2), now);
        assert_eq!((device.class(), device.paused_until), (DeviceClass::Prompt, Some(now + Duration::from_secs(2))));
        device.handle_slow();
        device.handle_timeout(now);
        assert_eq!((device.class(), device.paused_until), (DeviceClass::Slow, Some(now + MIN_PAUSE)));
    }
}
