"""The classes of a data set, and those of them that figures are about."""

ISIC_2017 = ("melanoma", "seborrheic_keratosis", "nevus")
POSITIVE = ("melanoma", "mel", "malignant")


def in_order(names):
    """Put the names of classes in the order of all tables and networks.

    Those of ISIC 2017 are in the challenge's order. Of two classes the positive one is first: the one in `POSITIVE`, or
    else the last by name (`benign, malignant`; `0, 1`; `no, yes`). Others are sorted by name.
    """
    names = sorted(set(names))
    if set(names) == set(ISIC_2017):
        return ISIC_2017
    if len(names) == 2:
        names.sort(key=lambda name: (name in POSITIVE, name), reverse=True)
    return tuple(names)


def tasks_of(classes):
    """The classes with figures of their own, one against the rest; their mean is what systems are compared by.

    The challenge of 2017 has two such tasks, its first two classes. Of two classes it is the positive one, the first.
    In any other data set it is every class.
    """
    return classes[: {ISIC_2017: 2}.get(tuple(classes), 1 if len(classes) == 2 else len(classes))]


def positive_class(classes):
    """The class that operating points are about: melanoma by one of its names, or else the first."""
    return next((name for name in POSITIVE if name in classes), classes[0])
