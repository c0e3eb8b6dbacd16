"""The instruments and the room of the demo corpus, in numpy: each a function from a note to samples.

All signals are float64 at `SAMPLE_RATE_HZ`, mono (T,) unless said otherwise, peaks near 1. Everything is linear
algebra on whole notes (FFT grids and recurrences over harmonics), so a minute of music takes about a second.
"""

import numpy as np

SAMPLE_RATE_HZ = 22_050
HIGHEST_PARTIAL_HZ = 9_500.0  # partials above are left out, so that nothing aliases


def midi_to_hz(pitch: float) -> float:
    """Frequency of a MIDI pitch number in equal temperament, A4 = 69 = 440 Hz."""
    return 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)


def num_samples(seconds: float) -> int:
    """Whole samples in that time."""
    return round(seconds * SAMPLE_RATE_HZ)


def convolve(signal: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Linear convolution by FFT along the last axis: (..., T) and (..., R) -> (..., T + R - 1)."""
    length = signal.shape[-1] + response.shape[-1] - 1
    size = 1 << (length - 1).bit_length()
    spectrum = np.fft.rfft(signal, size) * np.fft.rfft(response, size)
    return np.fft.irfft(spectrum, size)[..., :length]


def shaped_noise(rng: np.random.Generator, length: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Gaussian noise (T,) between two corner frequencies with gentle slopes (second order), unit power."""
    size = 1 << max(8, (length - 1).bit_length())
    hz = np.fft.rfftfreq(size, 1.0 / SAMPLE_RATE_HZ)
    gain = 1.0 / np.sqrt(1.0 + (hz / high_hz) ** 4)
    if low_hz > 0:
        gain *= (hz / low_hz) ** 2 / np.sqrt(1.0 + (hz / low_hz) ** 4)
    noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * gain, size)[:length]
    return noise / (noise.std() + 1e-9)


def ramp_ends(signal: np.ndarray, attack_s: float, release_s: float) -> np.ndarray:
    """The signal (T,) with raised-cosine ends, so that no note clicks."""
    signal = signal.copy()
    for seconds, at_start in ((attack_s, True), (release_s, False)):
        length = min(num_samples(seconds), len(signal))
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / max(length, 1))
        if at_start:
            signal[:length] *= ramp
        elif length:
            signal[-length:] *= ramp[::-1]
    return signal


def plucked_string(
    rng: np.random.Generator, hz: float, seconds: float, decay_s: float = 1.6, brightness_hz: float = 4000.0
) -> np.ndarray:
    """A plucked string (T,): Karplus and Strong (1983), tuned exactly.

    The string is a loop of one period's delay and an averaging filter, hence linear: its transfer function
    1 / (1 - g z^-(N-s) (1 - s + s z^-1)) is evaluated on the FFT grid, where the delay N may be fractional. The grid is
    longer than twice the decay to -60 dB, so what wraps around lies below -120 dB.
    """
    period = SAMPLE_RATE_HZ / hz
    smoothing = 0.42
    loop_gain = 10.0 ** (-3.0 * period / (decay_s * SAMPLE_RATE_HZ))
    size = 1 << (max(num_samples(seconds), 2 * num_samples(decay_s)) - 1).bit_length()
    omega = 2.0 * np.pi * np.arange(size // 2 + 1) / size
    loop = loop_gain * np.exp(-1j * omega * (period - smoothing)) * (1.0 - smoothing + smoothing * np.exp(-1j * omega))
    pluck = np.zeros(size)
    burst = round(period)
    pluck[:burst] = shaped_noise(rng, burst, 0.0, brightness_hz)
    plucked_at = rng.uniform(0.12, 0.3)  # share of the string: a comb in the spectrum
    comb = 1.0 - np.exp(-1j * omega * period * plucked_at)
    string = np.fft.irfft(np.fft.rfft(pluck) * comb / (1.0 - loop), size)[: num_samples(seconds)]
    return ramp_ends(string / (np.abs(string).max() + 1e-9), 0.001, 0.05)


def harmonics(phase: np.ndarray, amplitudes: np.ndarray) -> np.ndarray:
    """sum over k of amplitudes[k - 1] sin(k phase), phase (T,) -> (T,).

    By sin(k p) = 2 cos(p) sin((k - 1) p) - sin((k - 2) p): one multiplication a partial and sample.
    """
    twice_cosine = 2.0 * np.cos(phase)
    previous, current = np.zeros_like(phase), np.sin(phase)
    total = amplitudes[0] * current
    for amplitude in amplitudes[1:]:
        previous, current = current, twice_cosine * current - previous
        total += amplitude * current
    return total


def partial_amplitudes(hz: float, slope: float, most: int) -> np.ndarray:
    """k^-slope for the partials k = 1, 2, ... below `HIGHEST_PARTIAL_HZ`, at most `most` of them."""
    count = int(np.clip(HIGHEST_PARTIAL_HZ // hz, 1, most))
    return np.arange(1, count + 1, dtype=np.float64) ** -slope


def bowed_string(rng: np.random.Generator, hz: float, seconds: float) -> np.ndarray:
    """A bowed string (T,): band-limited sawtooth through body resonances, late vibrato, a little bow noise."""
    length = num_samples(seconds)
    time = np.arange(length) / SAMPLE_RATE_HZ
    vibrato = 0.0035 * np.minimum(time / 0.6, 1.0)
    vibrato *= np.sin(2.0 * np.pi * rng.uniform(4.8, 6.0) * time + rng.uniform(0, 6))
    drift = 0.0012 * rng.standard_normal()
    phase = 2.0 * np.pi * np.cumsum(hz * (1.0 + vibrato + drift)) / SAMPLE_RATE_HZ + rng.uniform(0, 6)
    amplitudes = partial_amplitudes(hz, 1.15, 28)
    partials_hz = hz * np.arange(1, len(amplitudes) + 1)
    body = sum(np.exp(-((np.log2(partials_hz / peak)) ** 2) / 0.15) for peak in (290.0, 480.0, 1100.0, 2600.0))
    tone = harmonics(phase, amplitudes * (0.35 + body))
    tone *= 1.0 + 0.08 * np.sin(2 * np.pi * rng.uniform(0.3, 0.9) * time + rng.uniform(0, 6))
    tone /= np.abs(tone).max()
    tone += 0.006 * shaped_noise(rng, length, 900.0, 5000.0)
    return ramp_ends(tone, min(0.16, seconds / 3), min(0.25, seconds / 3))


def electric_bass(rng: np.random.Generator, hz: float, seconds: float) -> np.ndarray:
    """A bass note (T,): partials that die the faster the higher they are, gently saturated."""
    time = np.arange(num_samples(seconds)) / SAMPLE_RATE_HZ
    phase = 2.0 * np.pi * hz * time
    tone = np.zeros_like(time)
    for k, amplitude in enumerate(partial_amplitudes(hz, 1.1, 9), start=1):
        tone += amplitude * np.exp(-time * (0.9 + 0.8 * k)) * np.sin(k * phase + rng.uniform(0, 0.5))
    return ramp_ends(np.tanh(1.2 * tone) / 1.1, 0.004, 0.06)


def electric_piano(rng: np.random.Generator, hz: float, seconds: float) -> np.ndarray:
    """A struck tine (T,): frequency modulation (Chowning, 1973) whose index decays, with a soft hammer."""
    time = np.arange(num_samples(seconds)) / SAMPLE_RATE_HZ
    index = min(1.4, 1500.0 / hz) * np.exp(-time * 3.0) * rng.uniform(0.7, 1.1)
    phase = 2.0 * np.pi * hz * time
    tone = np.sin(phase + index * np.sin(phase)) + 0.08 * np.exp(-time * 14.0) * np.sin(7.0 * phase) * (hz < 1200.0)
    return ramp_ends(tone * np.exp(-time * (1.1 + hz / 900.0)), 0.003, 0.08)


def kick(rng: np.random.Generator) -> np.ndarray:
    """A bass drum (T,): a sine that falls from 150 to 48 Hz, with a click of the beater."""
    time = np.arange(num_samples(0.35)) / SAMPLE_RATE_HZ
    phase = 2.0 * np.pi * (48.0 * time + 102.0 * 0.045 * (1.0 - np.exp(-time / 0.045)))
    beater = 0.05 * shaped_noise(rng, len(time), 800.0, 3500.0) * np.exp(-time * 220.0)
    return ramp_ends(np.sin(phase) * np.exp(-time * 11.0) + beater, 0.001, 0.05)


def snare(rng: np.random.Generator) -> np.ndarray:
    """A snare drum (T,): two modes of the skin and the rattle of the wires."""
    time = np.arange(num_samples(0.3)) / SAMPLE_RATE_HZ
    skin = 0.5 * np.sin(2 * np.pi * 186.0 * time) + 0.3 * np.sin(2 * np.pi * 331.0 * time)
    wires = 0.22 * shaped_noise(rng, len(time), 900.0, 6000.0) * np.exp(-time * 19.0)
    return ramp_ends(skin * np.exp(-time * 26.0) + wires, 0.001, 0.05)


def hi_hat(rng: np.random.Generator, seconds: float = 0.09) -> np.ndarray:
    """A hi-hat (T,): high noise with a quick decay."""
    time = np.arange(num_samples(seconds)) / SAMPLE_RATE_HZ
    return ramp_ends(0.25 * shaped_noise(rng, len(time), 6000.0, 9500.0) * np.exp(-time * 5.0 / seconds), 0.001, 0.02)


def room_response(rng: np.random.Generator, decay_s: float, wetness: float) -> np.ndarray:
    """A stereo room (2, R): the direct sound, early reflections and a tail, both decorrelated between the ears.

    The tail is noise in four bands, the higher the faster it dies, as air and walls absorb them.
    """
    length = num_samples(1.1 * decay_s)
    time = np.arange(length) / SAMPLE_RATE_HZ
    room = np.zeros((2, length))
    onset = num_samples(0.018)
    for ear in range(2):
        for low_hz, high_hz, share in ((60, 350, 1.0), (350, 1100, 0.85), (1100, 3000, 0.6), (3000, 7000, 0.35)):
            decay = np.exp(-6.91 * time / (decay_s * (0.35 + 0.65 * share)))
            room[ear, onset:] += (share * shaped_noise(rng, length, low_hz, high_hz) * decay)[:-onset]
        room[ear] *= 1.0 / np.sqrt((room[ear] ** 2).sum())
        at = np.sort(rng.integers(num_samples(0.004), num_samples(0.05), 9))
        np.add.at(room[ear], at, 0.45 * rng.choice([-1.0, 1.0], 9) * np.exp(-at / num_samples(0.03)))
    room *= wetness
    room[:, 0] += 1.0
    return room
