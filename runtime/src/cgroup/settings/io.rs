//! `linux.resources.blockIO`.

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice, LinuxWeightDevice};

use super::super::error::{Error, Result};
use super::super::layout::Controller;
use super::{Place, Sheet, Shows, Version, at};

const IO: Controller = Controller::Io;
/// Weights are the scheduler's: BFQ has its own file, which on v2 takes OCI's range as it
/// is (runc's `fs2/io.go`).
const V1_WEIGHT: &str = "blkio.bfq.weight|blkio.weight";
const V1_WEIGHT_DEVICE: &str = "blkio.bfq.weight_device|blkio.weight_device";

impl Sheet<'_> {
    pub(super) fn io(&mut self, io: &LinuxBlockIo) -> Result<()> {
        if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
            let field = "blockIO.weight";
            let v2 = v2_weight("", weight, io_weight(field, weight)?);
            self.put_with(IO, field, at(V1_WEIGHT, weight), v2, |setting| {
                // v2 shows this beside lines of devices.
                if setting.version == Version::V2 {
                    setting.shows = Shows::Lines("default 100".into());
                }
            })?;
        }
        // CFQ's, gone with it in Linux 5.0.
        if let Some(leaf) = io.leaf_weight().filter(|weight| *weight != 0) {
            let v1 = at("blkio.leaf_weight", leaf);
            self.put(IO, "blockIO.leafWeight", v1, None)?;
        }
        for device in io.weight_device().iter().flatten() {
            self.weight_of_device(device)?;
        }
        self.throttle(io.throttle_read_bps_device(), "ReadBps", "rbps", "read_bps")?;
        self.throttle(
            io.throttle_write_bps_device(),
            "WriteBps",
            "wbps",
            "write_bps",
        )?;
        self.throttle(
            io.throttle_read_iops_device(),
            "ReadIOPS",
            "riops",
            "read_iops",
        )?;
        self.throttle(
            io.throttle_write_iops_device(),
            "WriteIOPS",
            "wiops",
            "write_iops",
        )
    }

    fn weight_of_device(&mut self, device: &LinuxWeightDevice) -> Result<()> {
        let field = "blockIO.weightDevice";
        let key = format!("{}:{}", device.major(), device.minor());
        let set = |weight: Option<u16>| weight.filter(|weight| *weight != 0);
        let (weight, leaf) = (set(device.weight()), set(device.leaf_weight()));
        if weight.is_none() && leaf.is_none() {
            return Err(Error::unenforceable(field, key, "a weight is missing"));
        }
        if let Some(weight) = weight {
            let v1 = at(V1_WEIGHT_DEVICE, format!("{key} {weight}"));
            let v2 = v2_weight(&format!("{key} "), weight, io_weight(field, weight)?);
            self.put_with(IO, field, v1, v2, |setting| {
                let none = if setting.version == Version::V1 {
                    "0"
                } else {
                    "default"
                };
                setting.shows = Shows::Lines(format!("{key} {none}"));
            })?;
        }
        if let Some(leaf) = leaf {
            let v1 = at("blkio.leaf_weight_device", format!("{key} {leaf}"));
            self.put_with(IO, field, v1, None, |setting| {
                setting.shows = Shows::Lines(format!("{key} 0"));
            })?;
        }
        Ok(())
    }

    /// A rate of 0 lifts the limit, as it does on v1.
    fn throttle(
        &mut self,
        devices: &Option<Vec<LinuxThrottleDevice>>,
        name: &str,
        v2_key: &str,
        v1_file: &str,
    ) -> Result<()> {
        let field = format!("blockIO.throttle{name}Device");
        for device in devices.iter().flatten() {
            let key = format!("{}:{}", device.major(), device.minor());
            let rate = device.rate();
            let v1 = at(
                format!("blkio.throttle.{v1_file}_device"),
                format!("{key} {rate}"),
            );
            let v2_rate = if rate == 0 {
                "max".into()
            } else {
                rate.to_string()
            };
            let v2 = at("io.max", format!("{key} {v2_key}={v2_rate}"));
            self.put_with(IO, &field, v1, v2, |setting| {
                setting.shows = Shows::Lines(match setting.version {
                    Version::V1 => format!("{key} 0"),
                    Version::V2 => format!("{key} {v2_key}=max"),
                });
            })?;
        }
        Ok(())
    }
}

fn v2_weight(key: &str, bfq: u16, converted: u32) -> Place {
    Some(vec![
        ("io.bfq.weight".into(), format!("{key}{bfq}")),
        ("io.weight".into(), format!("{key}{converted}")),
    ])
}

/// From v1's 10…1000 to v2's 1…10000, linearly and rounded down, as runc's
/// `ConvertBlkIOToIOWeightValue`.
pub(super) fn io_weight(field: &str, weight: u16) -> Result<u32> {
    match weight {
        10..=1000 => Ok(1 + (u32::from(weight) - 10) * 9999 / 990),
        _ => Err(Error::unenforceable(
            field,
            weight,
            "a weight is 10 to 1000",
        )),
    }
}
