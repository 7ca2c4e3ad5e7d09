"""The classes of a data set, and the classes that metrics are about."""

ISIC_2017 = ("melanoma", "seborrheic_keratosis", "nevus")
POSITIVE = ("melanoma", "mel", "malignant")


def in_order(names):
    """Put the names of classes in the order of all tables and networks.

    The classes of ISIC 2017 have the challenge's order. Of two classes the positive one is first: the one in
    `POSITIVE`, or else the last by name (`benign, malignant`; `0, 1`; `no, yes`). Other classes are sorted by name.
    """
    names = sorted(set(names))
    if set(names) == set(ISIC_2017):
        return ISIC_2017
    if len(names) == 2:
        names.sort(key=lambda name: (name in POSITIVE, name), reverse=True)
    return tuple(names)


def tasks_of(classes):
    """The classes that have metrics, each one against the rest. Methods are compared by the mean over these tasks.

    The challenge of 2017 has two tasks, its first two classes. With two classes, the only task is the positive class,
    which is the first. In any other data set, every class is a task.
    """
    return classes[: {ISIC_2017: 2}.get(tuple(classes), 1 if len(classes) == 2 else len(classes))]


def positive_class(classes):
    """The class that operating points are about: melanoma by one of its names, or else the first."""
    return next((name for name in POSITIVE if name in classes), classes[0])
