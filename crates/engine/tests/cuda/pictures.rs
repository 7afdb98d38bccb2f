//! Pictures that stay on the device are what the host would have made of them.

use crate::session::on;
use engine::cuda::{Cuda, CudaOptions};
use engine::session::{Entry, Input, Session, SessionOptions, Wanted};
use model::adapter::HeadInput;
use model::tensor::Tensor;
use test_support::emulated_device::Emulator;
use test_support::fixtures::backbone;

/// Two patches along a side.
const SIDE: usize = 14;

/// An input of the pictures `numbers` of set `set`.
fn input<'a>(set: usize, numbers: &'a [u32], mirrored: &'a [bool]) -> Input<'a> {
    Input {
        entry: Entry::Pictures {
            set,
            numbers,
            mirrored,
        },
        tokens: None,
        adapter: None,
        pruning: &[],
        read: HeadInput::Feature,
    }
}

fn table() -> [[f32; 256]; 3] {
    [0.4, 0.5, 0.6].map(|mean| std::array::from_fn(|level| level as f32 / 255.0 - mean))
}

/// Four pictures of 14 × 14 pixels.
fn levels() -> Vec<u8> {
    (0..4 * 3 * 14 * 14u32)
        .map(|at| (at * 37 % 251) as u8)
        .collect()
}

#[test]
fn pictures_on_the_device_give_the_bits_of_the_same_pictures_copied_to_it() {
    let emulator = Emulator::open();
    let backbone = backbone("vit-tiny");
    // Two micro-batches.
    let options = SessionOptions {
        images_per_micro_batch: 3,
        ..SessionOptions::default()
    };
    let mut session = on(emulator.cuda(), &backbone, options);
    let (levels, table, side) = (levels(), table(), SIDE);
    let image = 3 * side * side;
    let parts = [&levels[..image], &levels[image..]];
    let set = session
        .keep_pictures(&parts, side, &table)
        .unwrap()
        .unwrap();
    let (numbers, mirrored) = ([2, 0, 3, 3, 1], [false, true, true, false, true]);
    let mut pixels = Vec::new();
    for (&number, &mirrored) in numbers.iter().zip(&mirrored) {
        let own = &levels[number as usize * image..][..image];
        for (at, line) in own.chunks(side).enumerate() {
            let mut line: Vec<f32> = line
                .iter()
                .map(|&level| table[at / side][usize::from(level)])
                .collect();
            if mirrored {
                line.reverse();
            }
            pixels.extend(line);
        }
    }
    let pixels = Tensor::new([numbers.len(), 3, side, side], pixels).unwrap();
    let features = |session: &mut Session, input: &Input<'_>| {
        let output = session.forward(input, Wanted::default()).unwrap();
        output.features.data().to_vec()
    };
    let expected = features(&mut session, &Input::pixels(&pixels));
    assert_eq!(
        features(&mut session, &input(set, &numbers, &mirrored)),
        expected
    );
}

#[test]
fn pictures_that_are_not_there_and_levels_that_make_no_picture_are_refused() {
    let emulator = Emulator::open();
    let backbone = backbone("vit-tiny");
    let mut session = on(emulator.cuda(), &backbone, SessionOptions::default());
    let (levels, table) = (levels(), table());
    let set = session
        .keep_pictures(&[&levels], SIDE, &table)
        .unwrap()
        .unwrap();
    let refused = |session: &mut Session, input: &Input<'_>| {
        let output = session.forward(input, Wanted::default());
        output.map(|_| ()).unwrap_err().to_string()
    };
    for (own, expected) in [
        (
            input(set, &[0, 4], &[false; 2]),
            "a picture's number has shape [4]",
        ),
        (input(set, &[0, 1], &[false]), "mirrored of shape [1]"),
        (
            input(set + 1, &[0], &[false]),
            "a set's number has shape [1]",
        ),
    ] {
        let found = refused(&mut session, &own);
        assert!(found.contains(expected), "{found}");
    }
    let short = session.keep_pictures(&[&levels[1..]], SIDE, &table);
    assert!(short.unwrap_err().to_string().contains("values where"));
    let mut infinite = table;
    infinite[1][7] = f32::INFINITY;
    let refused = session.keep_pictures(&[&levels], SIDE, &infinite);
    assert!(refused.unwrap_err().to_string().contains("finite"));
}

#[test]
fn pictures_stay_on_a_device_up_to_a_quarter_of_its_memory_and_never_on_the_processor() {
    let emulator = Emulator::open();
    let backbone = backbone("vit-tiny");
    let (side, table) = (SIDE, table());
    let mut cpu = Session::new(&backbone, SessionOptions::default()).unwrap();
    assert_eq!(cpu.keep_pictures(&[&levels()], side, &table), Ok(None));
    if !emulator.is_emulated() {
        return;
    }
    let memory = emulator.counts().bytes_in_use + (48 << 20);
    emulator.set_memory(memory);
    let cuda = Cuda::new(CudaOptions::default()).unwrap();
    let mut session = on(cuda, &backbone, SessionOptions::default());
    emulator.set_memory(8 << 30);
    let image = 3 * side * side;
    let pictures = memory as usize / 4 / image;
    let half = vec![0; pictures / 2 * image];
    let all = vec![0; (pictures + 1) * image];
    let mut keep = |levels: &[u8]| session.keep_pictures(&[levels], side, &table).unwrap();
    assert_eq!(keep(&all), None);
    assert_eq!(
        [keep(&half), keep(&half), keep(&half)],
        [Some(0), Some(1), None]
    );
}
