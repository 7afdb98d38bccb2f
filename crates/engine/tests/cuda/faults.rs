//! What a device can do wrong is an error of the pass; the process goes on.

use crate::session::{BOTH, assert_same, images, on, results};
use engine::backend::{
    AttentionInput, AttentionShape, Backend, BufferLengths, DeviceError, Matrix, Region,
};
use engine::operation::OperationError;
use engine::session::{Input, Session, SessionOptions, Wanted};
use engine::tolerance::FORWARD;
use test_support::emulated_device::Emulator;
use test_support::fixtures::{adapter, backbone};
use test_support::reference::assert_close;

#[test]
fn a_device_without_room_takes_fewer_images_at_a_time_and_says_so_where_even_one_is_too_many() {
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let (backbone, adapter) = (backbone("vit-tiny"), adapter("vit-tiny"));
    let [many, one] = [10, 1].map(|count| images("vit-tiny", count));
    let mut session = on(emulator.cuda(), &backbone, SessionOptions::default());
    let input = |pixels| Input {
        adapter: Some(&adapter),
        ..Input::pixels(pixels)
    };
    let of_one = |session: &mut Session| {
        let output = session.forward_for(&input(&one), Wanted::default(), BOTH);
        let dfeatures = vec![1.0; output.unwrap().features.data().len()];
        session.backward(&dfeatures, None).unwrap();
    };
    of_one(&mut session);
    let room = 1 << 16;
    emulator.set_memory(emulator.counts().bytes_in_use + room);
    // The buffers of one image are there; those of ten, one after another, need no more.
    let mut cpu = Session::new(&backbone, SessionOptions::default()).unwrap();
    let expected = cpu.forward(&input(&many), Wanted::default()).unwrap();
    let found = session.forward(&input(&many), Wanted::default()).unwrap();
    let [found, expected] = [found, expected].map(|own| own.features.data());
    assert_close("features", found, expected, FORWARD);
    // What ten images keep for their backward does not fit, however few are computed at a time.
    let refused = session.forward_for(&input(&many), Wanted::default(), BOTH);
    match refused.map(|_| ()) {
        Err(OperationError::Device(DeviceError::OutOfMemory { bytes })) => {
            assert!(bytes > 0);
        }
        other => panic!("{other:?}"),
    }
    of_one(&mut session);
}

#[test]
fn a_device_without_room_for_the_weights_says_so_at_the_first_pass() {
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let backbone = backbone("vit-tiny");
    let pixels = images("vit-tiny", 1);
    let cuda = emulator.cuda();
    emulator.set_memory(emulator.counts().bytes_in_use + 1000);
    let mut session = on(cuda.clone(), &backbone, SessionOptions::default());
    emulator.set_memory(8 << 30);
    let refused = session.forward(&Input::pixels(&pixels), Wanted::default());
    let refused = refused.map(|_| ()).unwrap_err();
    let out_of_memory = matches!(
        refused,
        OperationError::Device(DeviceError::OutOfMemory { .. })
    );
    assert!(out_of_memory, "{refused}");
    let mut session = on(cuda, &backbone, SessionOptions::default());
    session
        .forward(&Input::pixels(&pixels), Wanted::default())
        .unwrap();
}

#[test]
fn a_lost_device_ends_the_pass_with_its_reason_and_a_new_session_computes() {
    let emulator = Emulator::open();
    if !emulator.is_emulated() {
        return;
    }
    let (backbone, adapter) = (backbone("vit-tiny"), adapter("vit-tiny"));
    let pixels = images("vit-tiny", 2);
    let mut cpu = Session::new(&backbone, SessionOptions::default()).unwrap();
    let expected = results(&mut cpu, &pixels, Some(&adapter), None, &[]);
    let input = Input {
        adapter: Some(&adapter),
        ..Input::pixels(&pixels)
    };
    // Launches of the forward pass and of both.
    let mut session = on(emulator.cuda(), &backbone, SessionOptions::default());
    let start = emulator.counts().launches;
    let output = session.forward_for(&input, Wanted::default(), BOTH);
    let dfeatures = vec![1.0; output.unwrap().features.data().len()];
    let forward = emulator.counts().launches - start;
    session.backward(&dfeatures, None).unwrap();
    let both = emulator.counts().launches - start;
    drop(session);
    for launch in [1, forward, forward + 1, both] {
        let mut session = on(emulator.cuda(), &backbone, SessionOptions::default());
        emulator.lose_device_at(launch);
        let forward = session.forward_for(&input, Wanted::default(), BOTH);
        let forward = forward.map(|output| vec![1.0; output.features.data().len()]);
        let lost = match forward {
            Ok(dfeatures) => session.backward(&dfeatures, None).map(|_| ()),
            Err(error) => Err(error),
        };
        match lost {
            Err(OperationError::Device(DeviceError::Lost { reason })) => {
                assert!(reason.contains("CUDA_ERROR_LAUNCH_FAILED"), "{reason}");
            }
            other => panic!("launch {launch}: {other:?}"),
        }
        // It stays lost.
        let again = session.forward(&input, Wanted::default()).map(|_| ());
        let lost = matches!(again, Err(OperationError::Device(DeviceError::Lost { .. })));
        assert!(lost, "{again:?}");
        drop(session);
        emulator.clear_fault();
        let mut session = on(emulator.cuda(), &backbone, SessionOptions::default());
        let found = results(&mut session, &pixels, Some(&adapter), None, &[]);
        assert_same("vit-tiny", &found, &expected);
    }
}

#[test]
fn heads_wider_than_the_kernels_take_are_an_error_of_the_queue_which_then_goes_on() {
    let emulator = Emulator::open();
    let cuda = emulator.cuda();
    let mut queue = cuda.queue();
    let lengths = BufferLengths {
        kept: 4096,
        scratch: 0,
        pixels: 0,
    };
    cuda.enter(&mut queue, 0, lengths).unwrap();
    let head_width = 65;
    let shape = AttentionShape {
        images: 1,
        queries: 1,
        tokens: 1,
        heads: 1,
        head_width,
    };
    let row = |start, columns| Matrix {
        region: Region::Kept,
        start,
        rows: 1,
        columns,
        stride: columns,
    };
    let bias = cuda.vector(&vec![0.0; head_width]);
    let input = AttentionInput {
        query: row(0, head_width),
        key_value: row(100, 2 * head_width),
        query_bias: &bias,
        value_bias: &bias,
        log_sum: row(300, 1),
        scratch: row(301, 1),
    };
    let context = row(400, head_width);
    cuda.attention(&mut queue, shape, input, context);
    cuda.fill_zero(&mut queue, context);
    let refused = cuda.finish(&mut queue).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the device cannot compute this: heads of 65 values; its attention takes 64 at most"
    );
    cuda.upload(&mut queue, &[2.0; 65], context);
    cuda.download(&mut queue, context);
    cuda.finish(&mut queue).unwrap();
    let mut values = [0.0; 65];
    cuda.downloaded(&queue, context, &mut values);
    assert_eq!(values, [2.0; 65]);
}
