"""From the measures of one file to findings: where each limit lies, what to say and what to advise."""

import math
import re
from pathlib import Path
from typing import Any

from codes.data.audio.health.diagnosis import FileReport, Finding, Plan, Severity
from codes.data.audio.health.measure import Measures
from codes.data.audio.health.spectrum import Band
from codes.data.audio.reader import AudioInfo

MUCH_CLIPPED_SHARE = 1e-4
QUIET_PEAK = 1e-3  # -60 dB
MUCH_SILENCE_SHARE = 0.5
SOME_SILENCE_SHARE = 0.2
OFFSET_SHARE = 3e-3  # -50 dB
UPSAMPLED_SHARE = 0.8  # of half the rate; an edge above it is common in good recordings
LOSSY_SHARE = 0.6  # the same for lossy files, which have an edge by nature
COARSE_STEP = 8  # between all values of a file
_FEWEST_SAMPLES = 64  # of fewer, all may have zeros at the end by chance
_STANDARD_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
# What `AudioReadError` says -> kind of finding; the first that fits.
_ERROR_KINDS = {
    r"is empty|has no samples in it": "empty",
    r"holds floating point samples \(": "floating_point",
    r"is not audio that|has no audio stream|has no decoder for": "not_audio",
    r"truncated": "truncated",
    r"cannot be (opened|read|listed)|broken link|leads nowhere|does not exist|not a (regular )?file": "unreadable",
}
_SKIP = "on_error: skip leaves such files out"
_ERROR_ADVICE = {
    "empty": f"delete it, or get it again; {_SKIP}",
    "floating_point": "float_bits: 24 reads such files, rounded to so many bits",
    "not_audio": f"delete or rename it; {_SKIP}",
    "truncated": f"get it again; {_SKIP}",
    "unreadable": f"mend the link or the permission; {_SKIP}",
    "broken": f"get it again; {_SKIP}",
}


def error_finding(path: Path, message: str, plan: Plan) -> Finding:
    """A file that cannot be read; an error unless training is told to skip such files."""
    kind = next((kind for pattern, kind in _ERROR_KINDS.items() if re.search(pattern, message)), "broken")
    what = message.removeprefix(f"{path}: ")
    severity: Severity = "error" if plan.on_error == "fail" else "warning"
    option = "float_bits: 24" if kind == "floating_point" else "on_error: skip"
    return Finding(kind=kind, severity=severity, what=what, advice=_ERROR_ADVICE[kind], option=option, files=(path,))


def file_findings(file: FileReport) -> list[Finding]:
    """What is wrong with the sound of a file that could be decoded."""
    info, measures = file.info, file.measures
    assert info is not None
    assert measures is not None
    if len(measures.dead_channels) == info.num_channels:
        what = "digital silence" if measures.peak == 0.0 else "one constant value"
        return [_warning(file, "silent", what, "delete it: there is nothing to learn from it")]
    found = [
        *_clipping(file, measures),
        *_silence(file, measures),
        *_channels(file, info, measures),
        *_offset(file, info, measures),
    ]
    if measures.band is not None:
        found += _band(file, info, measures.band)
    return found if info.lossy else [*found, *_depth(file, info, measures)]


def _warning(file: FileReport, kind: str, what: str, advice: str, option: str = "", **values: Any) -> Finding:
    files = (file.path,)
    return Finding(kind=kind, severity="warning", what=what, advice=advice, option=option, files=files, values=values)


def _note(file: FileReport, kind: str, what: str, advice: str, **values: Any) -> Finding:
    return Finding(kind=kind, severity="note", what=what, advice=advice, files=(file.path,), values=values)


def _clipping(file: FileReport, measures: Measures) -> list[Finding]:
    runs, share = measures.num_clipped_runs, measures.clipped_share
    if runs == 0:
        return []
    what = f"{runs} {'run' if runs == 1 else 'runs'} of samples at full scale, {share:.2g} of all"
    make = _warning if share >= MUCH_CLIPPED_SHARE else _note
    advice = "find a version that is not clipped, or delete it" if make is _warning else "harmless, if it is so rare"
    return [make(file, "clipping", what, advice, num_runs=runs, share=share)]


def _silence(file: FileReport, measures: Measures) -> list[Finding]:
    found = []
    share, longest = measures.silent_share, measures.longest_silence_seconds
    if measures.peak < QUIET_PEAK:
        what = f"peak {_decibels(measures.peak)}"
        found.append(_warning(file, "quiet", what, "raise its level or delete it", peak=measures.peak))
    if share >= SOME_SILENCE_SHARE:
        make = _warning if share >= MUCH_SILENCE_SHARE else _note
        what = f"{share:.0%} of the time is digital silence, at most {longest:.2f} s on end"
        found.append(make(file, "silence", what, "cut it off", share=share, longest_seconds=longest))
    return found


def _channels(file: FileReport, info: AudioInfo, measures: Measures) -> list[Finding]:
    found = []
    for channel in measures.dead_channels:
        others = [other for other in range(info.num_channels) if other not in measures.dead_channels]
        what, option = f"channel {channel} never changes", f"channels: {{select: {others}}}"
        found.append(_warning(file, "dead_channel", what, f"{option} takes the others", option, channel=channel))
    if measures.equal_channels:
        spare = {j for _, j, _ in measures.equal_channels}
        named = [(i, j, gain) for i, j, gain in measures.equal_channels if i not in spare]
        what = "; ".join(f"channels {i} and {j} {_alike(gain)}" for i, j, gain in named)
        option = f"channels: {{select: {[c for c in range(info.num_channels) if c not in spare]}}}"
        advice = f"{option} takes one of them" if len(spare) == 1 else f"{option} takes each signal once"
        pairs = [{"channels": [i, j], "gain": gain} for i, j, gain in named]
        found.append(_warning(file, "fake_stereo", what, advice, option, pairs=pairs))
    return found


def _alike(gain: float) -> str:
    if gain == 1.0:
        return "are equal, sample by sample"
    if abs(gain - 1.0) < 1e-3:
        return "are equal but for the last bit"
    inverted = "inverted and " if gain < 0.0 else ""
    return f"are one signal, {inverted}at {_decibels(abs(gain))} of each other"


def _offset(file: FileReport, info: AudioInfo, measures: Measures) -> list[Finding]:
    worst = max(measures.offsets, key=abs)
    if abs(worst) < max(OFFSET_SHARE, 2.0 ** (1 - info.bits)):  # less than one step of the integers is rounding
        return []
    advice = "filter it out: a high-pass below 20 Hz, or subtract the mean"
    return [_warning(file, "offset", f"a mean of {worst:+.4f} of full scale throughout", advice, share=worst)]


def _band(file: FileReport, info: AudioInfo, band: Band) -> list[Finding]:
    nyquist_hz = info.sample_rate_hz / 2
    if band.edge_hz is None or (info.lossy and band.edge_hz >= LOSSY_SHARE * nyquist_hz):
        return []
    what = f"{_kilohertz(info.sample_rate_hz)}, nothing above {_kilohertz(round(band.edge_hz, -2))}"
    what += f" (an edge of {band.fall_db:.0f} dB)"
    values = {"edge_hz": band.edge_hz, "fall_db": band.fall_db, "sample_rate_hz": info.sample_rate_hz}
    if band.edge_hz >= UPSAMPLED_SHARE * nyquist_hz or info.lossy:
        return [_note(file, "band_limited", what, "nothing, if you know it", **values)]
    enough_hz = next((rate for rate in _STANDARD_RATES_HZ if rate / 2 >= band.edge_hz), info.sample_rate_hz)
    if enough_hz >= info.sample_rate_hz:
        return [_warning(file, "band_limited", what, "it was coded lossily or filtered: find the original", **values)]
    option = f"sample_rate: {enough_hz}"
    advice = f"it was upsampled or coded lossily: {option} keeps all of it, or find the original"
    return [_warning(file, "band_limited", what, advice, option, **values)]


def _depth(file: FileReport, info: AudioInfo, measures: Measures) -> list[Finding]:
    num_samples = info.num_frames * info.num_channels
    if measures.real_bits < info.bits and num_samples >= _FEWEST_SAMPLES:
        zeros = info.bits - measures.real_bits
        lowest = "the lowest bit is" if zeros == 1 else f"the lowest {zeros} bits are"
        what = f"{info.bits} bits, of which {lowest} always zero: {measures.real_bits} real bits"
        fitting = max(8, measures.real_bits)
        option = f"bits: {fitting}" if fitting < info.bits else ""
        advice = f"{option} loses nothing" if option else "nothing, if you know it"
        return [_warning(file, "padded_bits", what, advice, option, bits=info.bits, real_bits=measures.real_bits)]
    values, step = measures.num_values, measures.grid_step
    if step < COARSE_STEP:
        return []
    what = f"{info.bits} bits, but only {values} different values, {step} apart"
    advice = "it was made from fewer bits: find the original, or divide it by that step and use fewer bits"
    return [_warning(file, "few_values", what, advice, num_values=values, step=step)]


def _decibels(share: float) -> str:
    return f"{20.0 * math.log10(share):.1f} dB"


def _kilohertz(hz: float) -> str:
    return f"{hz / 1000:g} kHz"
