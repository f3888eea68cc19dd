//! The data set that needs no download: ten classes of noisy shapes, drawn on demand.
//!
//! `shapes:train` and `shapes:test` exist so that the shipped example network can be calibrated, trained and
//! judged on any machine. Image `i` of a split depends on nothing but the split and `i`, so every batch can be
//! drawn alone and in any order. All arithmetic is on integers: the pixels are the same on every platform.
//!
//! A picture is a two-colour gradient, some clutter, one shape (place, size, thickness, tilt and colour vary),
//! one blob that may cover a part of the shape, and noise. Contrast and noise are drawn per image such that
//! some pictures are hard to read; a small network gets most of them right, not all.

/// Number of classes, and of entries in [`CLASS_NAMES`].
pub const CLASSES: usize = 10;

/// What each label means.
pub const CLASS_NAMES: [&str; CLASSES] =
    ["disc", "ring", "square", "frame", "triangle", "diamond", "plus", "saltire", "stripes", "checker"];

/// Height and width of an image.
pub const SIDE: usize = 32;

/// Colour channels, RGB.
pub const CHANNELS: usize = 3;

/// Bytes of one image: channels, rows, columns.
pub const IMAGE_BYTES: usize = CHANNELS * SIDE * SIDE;

/// Images of `shapes:train` and of `shapes:test` where the spec gives no count.
pub const DEFAULT_COUNTS: (usize, usize) = (10_000, 2_000);

/// Positions are counted in sixteenths of a pixel.
const SUB: i32 = 16;

/// Cosine, sine and their common denominator of the tilts in use, from Pythagorean triples: about
/// 0, 10, 13 and 16 degrees. More would turn squares into diamonds.
const TILTS: [(i32, i32, i32); 7] =
    [(1, 0, 1), (60, 11, 61), (60, -11, 61), (40, 9, 41), (40, -9, 41), (24, 7, 25), (24, -7, 25)];

/// The split's part of the seed; fixed for good, since the accuracy of the shipped network rests on it.
const TRAIN_STREAM: u64 = 0x7368_6170_6573_0001;
const TEST_STREAM: u64 = 0x7368_6170_6573_0002;

/// One split of the data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shapes {
    stream: u64,
}

impl Shapes {
    /// The training split or the test split.
    pub fn new(train: bool) -> Shapes {
        Shapes { stream: if train { TRAIN_STREAM } else { TEST_STREAM } }
    }

    /// The class of image `index`. Any [`CLASSES`] successive images hold each class once, so the first `N`
    /// images are a balanced calibration set.
    pub fn label(&self, index: usize) -> u8 {
        let block = (index / CLASSES) as u64;
        let place = index % CLASSES;
        let mut rng = SplitMix::new(self.stream ^ 0x6c61_6265_6c00_0000 ^ block.wrapping_mul(0x9e37_79b9));
        let mut order: [u8; CLASSES] = std::array::from_fn(|class| class as u8);
        for last in (1..CLASSES).rev() {
            order.swap(last, rng.below(last as u32 + 1) as usize);
        }
        order[place]
    }

    /// Draws image `index` into `out`, which holds [`IMAGE_BYTES`] bytes: channel, row, column. A shorter
    /// slice gets the front part.
    pub fn draw(&self, index: usize, out: &mut [u8]) {
        let mut rng =
            SplitMix::new(self.stream.wrapping_add((index as u64).wrapping_mul(0xd134_2543_de82_ef95)));
        let scene = Scene::pick(usize::from(self.label(index)), &mut rng);
        let mut image = [0i32; IMAGE_BYTES];
        for y in 0..SIDE {
            for x in 0..SIDE {
                let colour = scene.colour(x as i32, y as i32);
                for (channel, &value) in colour.iter().enumerate() {
                    image[(channel * SIDE + y) * SIDE + x] = value;
                }
            }
        }
        add_noise(&mut image, scene.noise, &mut rng);
        for (byte, value) in out.iter_mut().zip(image) {
            *byte = value.clamp(0, 255) as u8;
        }
    }
}

type Colour = [i32; CHANNELS];

/// All that is drawn at random for one picture, but the noise itself.
struct Scene {
    sky: Colour,
    ground: Colour,
    clutter: [Blob; 3],
    shape: Shape,
    paint: Colour,
    cover: Blob,
    noise: i32,
}

impl Scene {
    fn pick(class: usize, rng: &mut SplitMix) -> Scene {
        let sky: Colour = std::array::from_fn(|_| rng.between(50, 205));
        let ground = std::array::from_fn(|channel| sky[channel] + rng.between(-40, 40));
        let shape = Shape::pick(class, rng);
        let paint = contrasting(&sky, &ground, rng);
        let clutter = std::array::from_fn(|_| Blob::pick(&sky, rng));
        let cover = Blob::pick(&sky, rng);
        Scene { sky, ground, clutter, shape, paint, cover, noise: rng.between(8, 48) }
    }

    /// The mean of four samples inside pixel (`x`, `y`), so that edges are smooth.
    fn colour(&self, x: i32, y: i32) -> Colour {
        let mut sum = [0; CHANNELS];
        for (step_x, step_y) in [(4, 4), (12, 4), (4, 12), (12, 12)] {
            let sample = self.sample(SUB * x + step_x, SUB * y + step_y);
            for (total, value) in sum.iter_mut().zip(sample) {
                *total += value;
            }
        }
        sum.map(|total| total / 4)
    }

    fn sample(&self, x: i32, y: i32) -> Colour {
        if self.cover.contains(x, y) {
            return self.cover.paint;
        }
        if self.shape.contains(x, y) {
            return self.paint;
        }
        if let Some(blob) = self.clutter.iter().find(|blob| blob.contains(x, y)) {
            return blob.paint;
        }
        let height = SIDE as i32 * SUB;
        std::array::from_fn(|channel| (self.sky[channel] * (height - y) + self.ground[channel] * y) / height)
    }
}

/// A colour that differs from the middle of the background by a contrast drawn between faint and plain.
fn contrasting(sky: &Colour, ground: &Colour, rng: &mut SplitMix) -> Colour {
    let contrast = rng.between(36, 104);
    let main = rng.below(CHANNELS as u32) as usize;
    std::array::from_fn(|channel| {
        let middle = (sky[channel] + ground[channel]) / 2;
        let step = if channel == main { contrast } else { rng.between(0, contrast) };
        let sign = if rng.below(2) == 0 { -1 } else { 1 };
        // Turned round where it would leave the range of a byte: a clipped shape would be fainter than drawn.
        let value = middle + sign * step;
        if (0..=255).contains(&value) { value } else { middle - sign * step }
    })
}

/// A tilted bar: clutter behind the shape, or a cover in front of it.
struct Blob {
    frame: Frame,
    half_length: i32,
    half_width: i32,
    paint: Colour,
}

impl Blob {
    fn pick(around: &Colour, rng: &mut SplitMix) -> Blob {
        Blob {
            frame: Frame::pick(0, SIDE as i32, rng),
            half_length: rng.between(SUB, 5 * SUB),
            half_width: rng.between(SUB / 2, 2 * SUB),
            paint: std::array::from_fn(|channel| around[channel] + rng.between(-60, 60)),
        }
    }

    fn contains(&self, x: i32, y: i32) -> bool {
        let (u, v) = self.frame.local(x, y);
        u.abs() <= self.half_length && v.abs() <= self.half_width
    }
}

/// A centre and a tilt.
struct Frame {
    centre: (i32, i32),
    tilt: (i32, i32, i32),
    /// Whether the axes are exchanged: a quarter turn and a mirror.
    turned: bool,
}

impl Frame {
    /// A centre between `low` and `high` pixels in both directions.
    fn pick(low: i32, high: i32, rng: &mut SplitMix) -> Frame {
        let centre = (rng.between(SUB * low, SUB * high), rng.between(SUB * low, SUB * high));
        let tilt = TILTS[rng.below(TILTS.len() as u32) as usize];
        Frame { centre, tilt, turned: rng.below(2) == 1 }
    }

    /// The point in the coordinates of the frame.
    fn local(&self, x: i32, y: i32) -> (i32, i32) {
        let (dx, dy) = (x - self.centre.0, y - self.centre.1);
        let (cos, sin, norm) = self.tilt;
        let (u, v) = ((cos * dx + sin * dy) / norm, (cos * dy - sin * dx) / norm);
        if self.turned { (v, u) } else { (u, v) }
    }
}

/// The shape that gives the picture its label.
struct Shape {
    class: usize,
    frame: Frame,
    /// Half of the extent.
    radius: i32,
    /// Width of an outline, of a bar of a cross, or of a stripe.
    stroke: i32,
}

impl Shape {
    fn pick(class: usize, rng: &mut SplitMix) -> Shape {
        let radius = rng.between(5 * SUB, 10 * SUB);
        let stroke = radius * rng.between(24, 44) / 100;
        Shape { class, frame: Frame::pick(10, 22, rng), radius, stroke }
    }

    fn contains(&self, x: i32, y: i32) -> bool {
        let (u, v) = self.frame.local(x, y);
        let (r, t) = (self.radius, self.stroke);
        // The half sides of square and diamond are chosen so that all filled shapes have about the disc's area.
        let (square, diamond) = (r * 7 / 8, r * 5 / 4);
        let far = u.abs().max(v.abs());
        let square_distance = u * u + v * v;
        match self.class {
            0 => square_distance <= r * r,
            1 => square_distance <= r * r && square_distance >= (r - t) * (r - t),
            2 => far <= square,
            3 => far <= square && far >= square - t,
            4 => (-r..=r * 3 / 4).contains(&v) && u.abs() * 7 <= (v + r) * 4,
            5 => u.abs() + v.abs() <= diamond,
            6 => in_plus(u, v, r, t),
            // 181 / 256 is the square root of one half: an eighth of a turn.
            7 => in_plus((u + v) * 181 / 256, (u - v) * 181 / 256, r, t),
            8 => far <= square && (v + 16 * t).div_euclid(t) % 2 == 0,
            _ => far <= square && ((u + 16 * t).div_euclid(t) + (v + 16 * t).div_euclid(t)) % 2 == 0,
        }
    }
}

/// Two crossed bars of half length `r` and width `t`.
fn in_plus(u: i32, v: i32, r: i32, t: i32) -> bool {
    (2 * u.abs() <= t && v.abs() <= r) || (2 * v.abs() <= t && u.abs() <= r)
}

/// Adds the difference of two uniform bytes, scaled by `amplitude / 256`: close enough to a normal
/// distribution, of standard deviation 0.41 `amplitude`.
fn add_noise(image: &mut [i32; IMAGE_BYTES], amplitude: i32, rng: &mut SplitMix) {
    for four in image.chunks_exact_mut(4) {
        for (value, pair) in four.iter_mut().zip(rng.next().to_le_bytes().chunks_exact(2)) {
            let spread: i32 = pair.first().zip(pair.last()).map_or(0, |(&a, &b)| i32::from(a) - i32::from(b));
            *value += (spread * amplitude) >> 8;
        }
    }
}

/// The generator of G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix {
    state: u64,
}

impl SplitMix {
    fn new(seed: u64) -> SplitMix {
        let mut rng = SplitMix { state: seed };
        // Seeds of neighbouring images differ in few bits; one step mixes them.
        rng.state = rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// A number from `low` to `high`, both possible.
    fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1).max(0) as u32) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(split: Shapes, index: usize) -> Vec<u8> {
        let mut pixels = vec![0; IMAGE_BYTES];
        split.draw(index, &mut pixels);
        pixels
    }

    #[test]
    fn each_block_of_ten_holds_each_class_once() {
        for block in 0..50 {
            let mut seen: Vec<u8> = (0..10).map(|i| Shapes::new(true).label(block * 10 + i)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..10).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn splits_and_images_differ_and_repeat() {
        let (train, test) = (Shapes::new(true), Shapes::new(false));
        assert_eq!(image(train, 3), image(train, 3));
        assert_ne!(image(train, 3), image(train, 4));
        assert_ne!(image(train, 3), image(test, 3));
    }

    /// The sum was computed once on x86-64. It fails when anybody changes the drawing, which would make the
    /// accuracy stated for the shipped network untrue.
    #[test]
    fn pixels_are_the_published_ones() {
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for index in 0..100 {
            for byte in image(Shapes::new(false), index) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        assert_eq!(hash, 0x4980_8d06_2ac3_e999, "{hash:#018x}");
    }

    #[test]
    fn a_shape_is_drawn_where_its_frame_is() {
        let upright = |class| Shape {
            class,
            frame: Frame { centre: (256, 256), tilt: (1, 0, 1), turned: false },
            radius: 128,
            stroke: 40,
        };
        let centre_filled = [true, false, true, false, true, true, true, true, true, true];
        for (class, filled) in centre_filled.into_iter().enumerate() {
            assert_eq!(upright(class).contains(256, 256), filled, "{}", CLASS_NAMES[class]);
            assert!(!upright(class).contains(256 + 170, 256), "{}", CLASS_NAMES[class]);
        }
        assert!(upright(6).contains(256 + 120, 256) && !upright(7).contains(256 + 120, 256));
        assert!(upright(7).contains(256 + 80, 256 + 80) && !upright(6).contains(256 + 80, 256 + 80));
        assert!(upright(2).contains(256 + 105, 256 + 105) && !upright(0).contains(256 + 105, 256 + 105));
    }
}
