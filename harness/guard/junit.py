"""A comparison as JUnit XML, which CI systems display: one test case per judgement.

A regression is a failure, a refusal an error. An inconclusive judgement is a skipped test with its
reason, because it was tested without result. The exit code says the same for all of them together.
"""

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from harness.guard.outcome import Comparison, Judgement, Outcome, Verdict
from harness.guard.summary import told
from harness.units import named_values


def junit(comparison: Comparison) -> str:
    """The comparison as an XML document."""
    cases = [_case(judgement) for judgement in comparison.points]
    cases += [_refusal(comparison)] if comparison.verdict is Outcome.REFUSED else []
    mark = "SIMULATED " if comparison.simulated else ""
    suite = Element(
        "testsuite",
        name=f"{mark}{comparison.candidate.study} against {comparison.baseline.study}",
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        errors=str(sum(case.find("error") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
    )
    suite.extend(cases)
    SubElement(suite, "system-out").text = comparison.summary
    root = Element("testsuites")
    root.append(suite)
    indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _case(judgement: Judgement) -> Element:
    case = Element(
        "testcase",
        classname=named_values(judgement.point, separator=" ") or "point",
        name=judgement.limit or judgement.metric,
    )
    if judgement.verdict is Verdict.REGRESSED:
        SubElement(case, "failure", message=told(judgement))
    elif judgement.verdict is Verdict.INCONCLUSIVE:
        SubElement(case, "skipped", message=f"inconclusive: {judgement.reason}")
    return case


def _refusal(comparison: Comparison) -> Element:
    case = Element("testcase", classname="comparison", name="comparable")
    SubElement(case, "error", message=comparison.summary)
    return case
