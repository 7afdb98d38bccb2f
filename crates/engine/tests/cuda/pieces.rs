//! Work that is queued as one piece gives what it gives launch by launch, whatever is known of it.

use engine::backend::{Backend, BufferLengths, Matrix, Region};
use engine::cuda::{Cuda, Queue};
use test_support::emulated_device::Emulator;

const LENGTHS: BufferLengths = BufferLengths {
    kept: 4096,
    scratch: 64,
    pixels: 0,
};

fn row(region: Region, start: usize, columns: usize) -> Matrix {
    Matrix {
        region,
        start,
        rows: 1,
        columns,
        stride: columns,
    }
}

/// Where a piece puts what is copied to the device, and where it adds that.
fn places(columns: usize) -> (Matrix, Matrix) {
    (
        row(Region::Kept, 0, columns),
        row(Region::Kept, 2048, columns),
    )
}

/// As a piece: adds `value` to the first `columns` values of the sum.
fn add(cuda: &Cuda, queue: &mut Queue, columns: usize, value: f32) {
    let (values, sum) = places(columns);
    cuda.begin_piece(queue);
    cuda.upload(queue, &vec![value; columns], values);
    cuda.add(queue, values, sum);
    cuda.end_piece(queue);
}

fn sum(cuda: &Cuda, queue: &mut Queue, columns: usize) -> Vec<f32> {
    let (_, sum) = places(columns);
    let mut values = vec![0.0; columns];
    cuda.download(queue, sum);
    cuda.finish(queue).unwrap();
    cuda.downloaded(queue, sum, &mut values);
    values
}

fn zero(cuda: &Cuda) -> Queue {
    let mut queue = cuda.queue();
    cuda.enter(&mut queue, 0, LENGTHS).unwrap();
    cuda.fill_zero(&mut queue, row(Region::Kept, 0, LENGTHS.kept));
    queue
}

#[test]
fn pieces_take_the_values_of_their_time_and_only_those_that_are_known_are_captured() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    let mut queue = zero(&cuda);
    let mut expected = 0.0;
    let mut graphs = Vec::new();
    for (step, columns) in [7, 7, 7, 9, 7, 9, 9, 7].into_iter().enumerate() {
        let value = 1.0 + step as f32;
        expected += value;
        let before = emulator.is_emulated().then(|| emulator.counts());
        add(&cuda, &mut queue, columns, value);
        if let Some(before) = before {
            graphs.push(emulator.counts().graph_launches - before.graph_launches);
        }
        assert_eq!(sum(&cuda, &mut queue, 7), [expected; 7]);
    }
    if emulator.is_emulated() {
        assert_eq!(graphs, [0, 1, 1, 0, 1, 1, 1, 1]);
    }
}

#[test]
fn a_graph_that_may_still_read_its_values_is_not_given_others() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    let mut queue = zero(&cuda);
    for value in 1..=9u8 {
        add(&cuda, &mut queue, 7, f32::from(value));
    }
    assert_eq!(sum(&cuda, &mut queue, 7), [45.0; 7]);
}

#[test]
fn memory_that_grows_in_the_middle_of_a_piece_takes_nothing_from_it() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    let mut queue = zero(&cuda);
    let (values, sum_of) = places(8);
    for scratch in [64, 64, 1024, 1024, 4096] {
        cuda.begin_piece(&mut queue);
        let through = row(Region::Scratch, 0, 8);
        cuda.upload(&mut queue, &[1.0; 8], values);
        cuda.fill_zero(&mut queue, through);
        cuda.add(&mut queue, values, through);
        cuda.add(&mut queue, through, sum_of);
        cuda.enter(&mut queue, 0, BufferLengths { scratch, ..LENGTHS })
            .unwrap();
        cuda.add(&mut queue, values, sum_of);
        cuda.end_piece(&mut queue);
    }
    assert_eq!(sum(&cuda, &mut queue, 8), [10.0; 8]);
}

#[test]
fn a_piece_that_is_not_ended_is_done_when_the_host_waits_and_left_out_when_another_begins() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    let mut queue = zero(&cuda);
    let (values, sum_of) = places(4);
    for expected in [3.0, 6.0, 9.0] {
        cuda.begin_piece(&mut queue);
        cuda.upload(&mut queue, &[100.0; 4], values);
        cuda.add(&mut queue, values, sum_of);
        cuda.begin_piece(&mut queue);
        cuda.upload(&mut queue, &[3.0; 4], values);
        cuda.add(&mut queue, values, sum_of);
        assert_eq!(sum(&cuda, &mut queue, 4), [expected; 4]);
    }
}

#[test]
fn a_device_without_room_for_a_capture_does_the_work_launch_by_launch() {
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let cuda = emulator.cuda();
    let mut queue = zero(&cuda);
    add(&cuda, &mut queue, 7, 1.0);
    // The lane in which graphs are captured has memory of its own.
    emulator.set_memory(emulator.counts().bytes_in_use + 1000);
    let before = emulator.counts();
    for _ in 0..3 {
        add(&cuda, &mut queue, 7, 1.0);
        cuda.finish(&mut queue).unwrap();
    }
    assert_eq!(emulator.counts().graph_launches, before.graph_launches);
    assert_eq!(sum(&cuda, &mut queue, 7), [4.0; 7]);
}
