//! The shop's uploads: pictures, documents, exports, one large film; and some of what file trees have that copies
//! lose: links, attributes, modes, times, names that are not plain.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::SystemTime;

use chrono::{DateTime, TimeDelta, Utc};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde_json::json;

use super::database::{COLOURS, Order, THINGS};
use super::dice::Dice;
use super::formats::{pdf, png};
use super::{Built, Day, Scale, ShopError, make_folder};

/// A file that is never empty: for a check by command.
pub(in crate::cli::demo) const CATALOGUE: &str = "catalogue.json";
/// The attribute that one file has.
pub(super) const XATTR: &str = "user.shop.origin";

/// What stands in a daily export.
const ORDERS_AN_EXPORT: u32 = 1_200;
/// Photos in a folder.
const PICTURES_A_FOLDER: u32 = 50;
/// Invoices in a folder.
const INVOICES_A_FOLDER: u32 = 100;

/// Writes files below a folder and counts them.
struct Tree<'a> {
    root: &'a Path,
    now: DateTime<Utc>,
    files: u64,
    bytes: u64,
}

impl Tree<'_> {
    /// Writes a file that was last changed so many hours ago.
    fn file(&mut self, name: &str, content: &[u8], age_hours: u32) -> Result<(), ShopError> {
        let path = self.root.join(name);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let modified: SystemTime = (self.now - TimeDelta::hours(age_hours.into())).into();
        File::create(&path)
            .and_then(|mut file| {
                file.write_all(content)?;
                file.set_modified(modified)
            })
            .map_err(|cause| ShopError::Io { verb: "write", path, cause })?;
        self.files += 1;
        self.bytes += content.len() as u64;
        Ok(())
    }

    fn attempt(
        &self,
        verb: &'static str,
        name: &str,
        work: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(), ShopError> {
        let path = self.root.join(name);
        work(&path).map_err(|cause| ShopError::Io { verb, path, cause })
    }
}

/// Builds the tree; `rows` of what is returned is left at 0.
pub(super) fn build(root: &Path, scale: Scale, now: DateTime<Utc>) -> Result<Built, ShopError> {
    let mut tree = Tree { root, now, files: 0, bytes: 0 };
    make_folder(root)?;
    for number in 1..=scale.pictures {
        let (photo, thumbnail) = picture(number);
        let age = 24 * (1 + number % 300);
        tree.file(&photo_name(number), &photo, age)?;
        tree.file(&format!("thumbnails/{number:04}.png"), &thumbnail, age)?;
    }
    for number in 1..=scale.invoices {
        tree.file(&invoice_name(number), &invoice(number, scale), 24 + 12 * (number % 700))?;
    }
    for day in 1..=scale.exports {
        tree.file(&export_name(now, day), &export(day, scale), 24 * day)?;
    }
    tree.file(&format!("exports/{CATALOGUE}"), &catalogue(scale, "1"), 24)?;
    tree.file("notes/opening hours.txt", OPENING_HOURS.as_bytes(), 2_000)?;
    tree.file("notes/Grüße vom Straßenfest.txt", "Schön war's. Nächstes Jahr wieder!\n".as_bytes(), 3_000)?;
    tree.file("notes/alarm code.txt", b"ask Katja\n", 4_000)?;
    tree.file("video/opening day.mp4", &video(scale.video_bytes), 5_000)?;

    tree.attempt("set the mode of", "notes/alarm code.txt", |path| {
        fs::set_permissions(path, Permissions::from_mode(0o600))
    })?;
    if scale.exports > 0 {
        let newest = export_name(now, 1);
        let target = newest.trim_start_matches("exports/").to_owned();
        tree.attempt("make", "exports/latest.csv", |path| symlink(target, path))?;
    }
    // A name is no file: the second one does not count, but the tree lists it.
    let original = root.join("notes/opening hours.txt");
    tree.attempt("make", "notes/door sign.txt", |path| fs::hard_link(&original, path))?;
    tree.files += 1;
    let xattr = set_attribute(&root.join("notes/Grüße vom Straßenfest.txt"), now)?;
    Ok(Built { rows: 0, files: tree.files, bytes: tree.bytes, xattr })
}

/// Whether the file system takes it.
fn set_attribute(path: &Path, now: DateTime<Utc>) -> Result<bool, ShopError> {
    let value = format!("camera 2, read {}", now.format("%Y-%m-%d"));
    match rustix::fs::setxattr(path, XATTR, value.as_bytes(), XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::PERM) => Ok(false),
        Err(errno) => Err(ShopError::Io { verb: "set an attribute of", path: path.to_owned(), cause: errno.into() }),
    }
}

fn photo_name(number: u32) -> String {
    format!("pictures/{:02}/photo {number:04}.png", number / PICTURES_A_FOLDER)
}

fn invoice_name(number: u32) -> String {
    format!("invoices/{:02}/R-{number:05}.pdf", number / INVOICES_A_FOLDER)
}

fn export_name(now: DateTime<Utc>, day: u32) -> String {
    format!("exports/orders-{}.csv", (now - TimeDelta::days(day.into())).format("%Y-%m-%d"))
}

const OPENING_HOURS: &str = "Monday to Friday 9-18, Saturday 10-16.\nClosed on Sundays, and when the river is high.\n";

/// A photo of some 60 kB and its thumbnail of 3 kB: a thing on a background, with the noise of a camera.
fn picture(number: u32) -> (Vec<u8>, Vec<u8>) {
    let mut dice = Dice::of(&format!("picture {number}"));
    let colour = [dice.below(200) as u8, dice.below(200) as u8, dice.below(200) as u8];
    let (width, height) = (150 + dice.below(60), 100 + dice.below(30));
    let mut noise = dice.bytes((width * height) as usize).into_iter();
    let mut paint = |width: u32, height: u32, camera: bool| {
        png(width, height, |x, y| {
            let (dx, dy) = (i64::from(x * 2) - i64::from(width), i64::from(y * 2) - i64::from(height));
            let inside = dx * dx + dy * dy < i64::from(height * height) / 2;
            let grain = if camera { noise.next().unwrap_or(0) % 32 } else { 0 };
            let light = (y * 40 / height) as u8;
            if inside { colour.map(|c| c + grain) } else { [150 + light + grain; 3] }
        })
    };
    let photo = paint(width, height, true);
    (photo, paint(36, 28, false))
}

fn invoice(number: u32, scale: Scale) -> Vec<u8> {
    let mut dice = Dice::of(&format!("invoice {number}"));
    let order = Order::thrown(&mut dice, scale);
    let mut lines = vec![format!("Invoice R-{number:05}"), format!("Customer {}", order.customer), String::new()];
    for (product, quantity, price) in &order.lines {
        let (colour, thing) = (dice.pick(&COLOURS), dice.pick(&THINGS));
        lines.push(format!("{quantity} x {colour} {thing} (SKU-{product:05}) at {:.2} EUR", *price as f64 / 100.0));
    }
    lines.push(format!("Total {:.2} EUR, paid with thanks.", order.total_cents as f64 / 100.0));
    pdf(&lines)
}

fn export(day: u32, scale: Scale) -> Vec<u8> {
    let mut dice = Dice::of(&format!("export {day}"));
    let mut text = String::from("order,customer,lines,total_cents\n");
    for row in 0..ORDERS_AN_EXPORT.min(scale.orders) {
        let order = Order::thrown(&mut dice, scale);
        text.push_str(&format!("{}-{row:05},{},{},{}\n", day, order.customer, order.lines.len(), order.total_cents));
    }
    text.into_bytes()
}

fn catalogue(scale: Scale, edition: &str) -> Vec<u8> {
    let mut dice = Dice::of(&format!("catalogue {edition}"));
    let products: Vec<_> = (1..=scale.products)
        .map(|id| json!({ "sku": format!("SKU-{id:05}"), "colour": dice.pick(&COLOURS), "thing": dice.pick(&THINGS) }))
        .collect();
    format!("{:#}\n", json!({ "edition": edition, "products": products })).into_bytes()
}

/// The head of an MP4 file and bytes that, as in a film, do not compress.
fn video(bytes: usize) -> Vec<u8> {
    let mut file = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom\0\0\0\0mdat".to_vec();
    file.extend(Dice::of("video").bytes(bytes));
    file
}

/// New pictures and documents, an edited text and catalogue, a picture that is gone. Counts of orders are left at 0.
pub(super) fn change_a_day(root: &Path, scale: Scale, now: DateTime<Utc>) -> Result<Day, ShopError> {
    let mut tree = Tree { root, now, files: 0, bytes: 0 };
    for number in scale.pictures + 1..=scale.pictures + (scale.pictures / 50).max(1) {
        let (photo, thumbnail) = picture(number);
        tree.file(&photo_name(number), &photo, 0)?;
        tree.file(&format!("thumbnails/{number:04}.png"), &thumbnail, 0)?;
    }
    for number in scale.invoices + 1..=scale.invoices + (scale.invoices / 50).max(1) {
        tree.file(&invoice_name(number), &invoice(number, scale), 0)?;
    }
    let files_added = tree.files;
    tree.file(&format!("exports/{CATALOGUE}"), &catalogue(scale, "2"), 0)?;
    tree.file("notes/Grüße vom Straßenfest.txt", "Nächstes Jahr am 14. Juni!\n".as_bytes(), 0)?;
    tree.attempt("remove", &photo_name(1), |path| fs::remove_file(path))?;
    Ok(Day { files_added, files_edited: 2, files_deleted: 1, ..Day::default() })
}
